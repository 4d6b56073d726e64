# SPDX-License-Identifier: Apache-2.0
"""A configuration that cannot work is said at once, naming the member of agent.json, not retried for ever.

An application may write to agent.json, and without it there is no way back to the version before. So a copy of the last
one that was good is kept beside it, `agent.json.good`, where it is found without it. Where there is such a copy nobody
may be at hand to mend anything: the agent then waits, since what failed may be a disk that is full, or not there yet.
"""

from __future__ import annotations

import os
import ssl
import time

from edgeagent import compat, config, log
from edgeagent.config import Config
from edgeagent.errors import ConfigError
from edgeagent.identity import Identity, known
from edgeagent.ota import trial
from edgeagent.ports.linux import LinuxPort
from edgeagent.transports import settings

_LIMIT = 8192  # bytes; a larger one cannot be loaded
AGAIN_S = 30.0


def load(path: str) -> Config:
    """As `attempt`, again and again where agent.json has been good before. All paths in it are absolute: an application
    may change its working folder. Raises ConfigError where it has never been good.
    """
    path = os.path.abspath(path)
    while True:
        try:
            return attempt(path)
        except ConfigError as error:
            if not os.path.exists(path + ".good"):
                raise
            log.error("launcher", "tried again in %d s: %s", int(AGAIN_S), error)
        time.sleep(AGAIN_S)


def attempt(path: str) -> Config:
    """Load agent.json and `check` it. If that fails, and the one of the last good start works, put this one back; what
    was wrong is then in `path`.wrong, if there is room. Raises ConfigError.
    """
    try:
        found = _load(path)
    except ConfigError as error:
        good, wrong = compat.read_file(path + ".good", _LIMIT), compat.read_file(path, _LIMIT)
        if good is None or good == wrong:
            raise
        try:
            found = _load(path + ".good")
            _put_back(path, good, wrong, LinuxPort(found).slots_dir)
        except (ConfigError, OSError):
            raise error from None
        log.error("launcher", "%s; the one of the last start is put back", error)
    _keep(path, found)
    return found


def _put_back(path: str, good: bytes, wrong: bytes | None, root: str) -> None:
    try:
        if wrong is not None:
            compat.write_atomic(path + ".wrong", wrong, private=True)
        compat.write_atomic(path, good)
    except OSError as error:
        trial.failed(root, "agent.json is spoilt: " + compat.exc_text(error))  # it would do it again, without a copy
        for name in (path + ".new", path + ".wrong.new"):
            compat.remove_tree(name)
        os.replace(path + ".good", path)  # needs no room on a full disk; the next start that has some keeps a copy
        compat.sync_dir(os.path.dirname(path))


def _load(path: str) -> Config:
    found = config.load(path)
    check(found, LinuxPort(found))
    return found


def _keep(path: str, found: Config) -> None:
    """Not during a trial: what that version makes of agent.json has to prove itself, too."""
    text = compat.read_file(path, _LIMIT)
    if text is None or text == compat.read_file(path + ".good", _LIMIT):
        return
    try:
        if trial.status(LinuxPort(found).slots_dir)["state"] != "trial":
            compat.write_atomic(path + ".good", text)
    except OSError:
        pass  # whoever cannot write here cannot spoil agent.json either


def check(config: Config, port: LinuxPort) -> None:
    """Load the CA and the credentials this start will use: the identity, or the claim if there is none yet. Dates are
    left to the agent, which waits for the clock (explain.py).

    Raises ConfigError naming the member and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=config.ca)
    except OSError as error:
        raise ConfigError("ca", f"{config.ca}: not a CA certificate in PEM ({_why(error)})") from None
    pkcs11 = settings(config)["pkcs11"]
    found = known(config, Identity(port.state_dir, port.pem).load())
    if found and pkcs11 and found[2] == config.key:
        _certificate(context, "certificate", found[1])  # its key is in the token
    elif found:
        _pair(context, "certificate, key", found[1], found[2])
    elif config.claim is not None:
        claim = config.claim
        _pair(context, "claim.certificate, claim.key", claim["certificate"], claim["key"])


def _certificate(context: ssl.SSLContext, field: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)  # reads certificates, and this context serves nothing else
    except OSError as error:
        raise ConfigError(field, f"{path}: not a certificate in PEM ({_why(error)})") from None


def _pair(context: ssl.SSLContext, fields: str, certificate: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            fields, f"{certificate}, {key}: not a certificate in PEM and its key ({_why(error)})"
        ) from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "SSL error"
    return error.strerror or "cannot be read"

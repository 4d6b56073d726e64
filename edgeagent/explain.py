# SPDX-License-Identifier: Apache-2.0
"""Why a connection cannot succeed, in one line: clock, CA or key. Loaded when connecting has failed, dropped after it.

TLS tells the two sides apart badly ("certificate verify failed" may be the clock), and a board's MicroPython does not
say that a key does not fit its certificate. So the files are looked at.
"""

import time

from edgeagent.compat import Any, read_file
from edgeagent.errors import AgentError, ConfigError, TransportError
from edgeagent.identity import read_credential
from edgeagent.jobs.registry import unload


def _element(data: bytes, at: int) -> "tuple[int, int, int]":
    """(tag, where the content begins, where it ends) of the DER element at `at`. Raises IndexError if it is cut."""
    size = data[at + 1]
    start = at + 2
    if size > 127:
        count = size & 127
        size = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + size > len(data):
        raise IndexError
    return data[at], start, start + size


def look(data: bytes) -> "tuple[str, str, bytes]":
    """(not before, not after: each YYYYMMDDhhmmss, UTC; subjectPublicKeyInfo) of a DER certificate.

    Source: RFC 5280 section 4.1. Raises ValueError if it is none.
    """
    try:
        at = _element(data, _element(data, 0)[1])[1]
        if data[at] == 0xA0:  # version
            at = _element(data, at)[2]
        for _ in range(3):  # serial number, algorithm, issuer
            at = _element(data, at)[2]
        times = []
        part = _element(data, at)[1]
        for _ in range(2):
            tag, part, end = _element(data, part)
            text = data[part:end].decode()[:-1]
            if tag == 0x17:  # UTCTime
                text = ("20" if text < "5" else "19") + text
            times.append(text)
            part = end
        at = _element(data, _element(data, at)[2])[2]  # subject
        return times[0], times[1], data[at : _element(data, at)[2]]
    except (IndexError, UnicodeError):
        raise ValueError("not a certificate") from None


def problem(ca: str, certificate: str, key: str) -> str:
    """What is wrong with clock or files, naming the file; "" if nothing can be seen. ca, certificate, key: paths."""
    now = "%04d%02d%02d%02d%02d%02d" % tuple(time.gmtime()[:6])
    try:
        for path in (ca, certificate):
            try:
                start, end, public = look(read_credential(path))
            except ValueError as error:
                raise ConfigError(path, str(error)) from None
            if now < start:
                return "the clock says %s, %s is valid from %s: is the clock set?" % (now[:8], path, start[:8])
            if now > end:
                return "the clock says %s, %s was valid until %s" % (now[:8], path, end[:8])
        secret = read_file(key, 8192) or b""
    except ConfigError as error:
        return str(error)
    if secret[:1] not in (b"\x30", b"-"):
        return key + " is missing or no key"
    # A key holds its public part too, except for short forms of EC keys: the point, or the end of the modulus (before
    # the exponent 65537). OpenSSL checks this itself when it reads a PEM file.
    if secret[:1] == b"\x30" and len(secret) > 99 and public[-64:] not in secret and public[-69:-5] not in secret:
        return "%s is not the key of %s" % (key, certificate)
    return ""


def explain(agent: "Any", error: AgentError) -> AgentError:
    """The error to log for a failed connection: itself, or one with the reason that was found in front."""
    unload(["edgeagent.explain"])
    config = agent.config
    paths = (config.ca,) + tuple(agent.credentials)
    found = problem(*paths)
    for path in paths:
        if not agent.port.pem and (read_file(path, 8192) or b"")[:5] == b"-----":
            found = path + " is PEM; a board reads DER"
    # MicroPython's word for a certificate that does not verify; CPython's errors say so themselves.
    if not found and "link: ValueError" in str(error):
        found = "the server is not trusted: is %s its CA, %s its name?" % (config.ca, config.server_hostname)
    return TransportError(found, str(error)) if found else error

# SPDX-License-Identifier: Apache-2.0
"""Lay out the files of a device that is about to be onboarded: a board's file system, or a Pi's folder.

A board gets the agent as .mpy (the files that edgeagent/package.json lists, nothing else), DER credentials, and its
first application in slot `a`. A CPython device has the agent installed by pip; it gets PEM credentials and the slot.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from edgeagent.config import parse
from edgeagent.errors import ConfigError
from edgeagent.identity import pem_to_der
from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from edgefleet.artifacts.build import Artifact, compile_file
from edgefleet.errors import InputError

BOARD_SCRIPTS = ("boot.py", "main.py")


def configuration(
    *,
    endpoint: str,
    port: int,
    template: str,
    parameters: Mapping[str, str],
    csr: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """agent.json of a device that onboards by claim, without the paths: those differ between boards and hosts."""
    return {
        "endpoint": endpoint,
        "port": port,
        "claim": {"template": template, "parameters": dict(parameters), "csr": csr},
        "attributes": dict(attributes or {}),
    }


def agent_files() -> dict[str, Path]:
    """Board path (`edgeagent/mqtt/client.mpy` …) → source, as edgeagent/package.json lists them."""
    package = Path(str(resources.files("edgeagent")))
    listing = json.loads((package / "package.json").read_text())
    return {target.removesuffix(".py") + ".mpy": package / source for target, source in listing["urls"]}


def agent_bytecode() -> dict[str, bytes]:
    """Board path → .mpy at -O2. Tracebacks name a file as `mqtt/client`: every module carries its own name in RAM."""
    package = "edgeagent/"
    return {
        target: compile_file(source, target.removeprefix(package).removesuffix(".mpy"))
        for target, source in agent_files().items()
    }


def prepare(
    files: Path,
    config: Mapping[str, Any],
    *,
    on_board: bool,
    ca: Path,
    claim_certificate: Path,
    claim_key: Path,
    trust: Mapping[str, Any] | None = None,
    application: Path | None = None,
) -> None:
    """Fill the folder `files` with a MicroPython board's file system, or with what a CPython agent needs
    (`edgeagent run --config FILES/agent.json`).

    application: folder of a built artifact (edgefleet artifact build). Raises InputError naming what is wrong.
    """
    _reset(files)
    if on_board:
        _agent(files)
    form = "der" if on_board else "pem"
    _credentials(files, ca, claim_certificate, claim_key, form)
    _install(files, config, form, "/" if on_board else "", trust, application)


def _agent(files: Path) -> None:
    scripts = resources.files("boards.common")
    for script in BOARD_SCRIPTS:
        (files / script).write_text((scripts / script).read_text())
    for target, bytecode in agent_bytecode().items():
        compiled = files / "lib" / target
        compiled.parent.mkdir(parents=True, exist_ok=True)
        compiled.write_bytes(bytecode)


def _reset(files: Path) -> None:
    if files.exists() and any(files.iterdir()) and not (files / "agent.json").exists():
        raise InputError(f"{files}: is not empty and was not made by this command")
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)


def _credentials(files: Path, ca: Path, certificate: Path, key: Path, form: str) -> None:
    folder = files / "certs"
    folder.mkdir(mode=0o700)
    for name, source in (("ca", ca), ("claim-cert", certificate), ("claim-key", key)):
        try:
            pem = source.read_text()
            data = pem_to_der(pem) if form == "der" else pem.encode()
        except (OSError, UnicodeError) as error:
            raise InputError(f"{source}: {error}") from None
        except ConfigError as error:
            raise InputError(f"{source}: {error}") from None
        target = folder / f"{name}.{form}"
        target.touch(mode=0o600)
        target.write_bytes(data)


def _install(
    files: Path,
    config: Mapping[str, Any],
    form: str,
    root: str,
    trust: Mapping[str, Any] | None,
    application: Path | None,
) -> None:
    claim = {
        **config["claim"],
        "certificate": f"{root}certs/claim-cert.{form}",
        "key": f"{root}certs/claim-key.{form}",
    }
    document = {**config, "ca": f"{root}certs/ca.{form}", "claim": claim}
    if not root:
        document["state_dir"], document["slots_dir"] = "state", "slots"
    if trust is not None:
        document["trust"] = f"{root}certs/trust.json"
        (files / "certs" / "trust.json").write_text(json.dumps(trust))
    try:
        parse(document, str(files))
    except ConfigError as error:
        raise InputError(str(error)) from None
    (files / "agent.json").write_text(json.dumps(document, indent=2))
    (files / "state").mkdir()
    if application is not None:
        _install_application(str(files / "slots"), Artifact.read(application))


def _install_application(root: str, artifact: Artifact) -> None:
    """The factory's own installation: slot `a`, confirmed without a trial."""
    slots = Slots(root)
    slot = Path(slots.prepare(artifact.digest))
    for path, data in artifact.files():
        (slot / path).parent.mkdir(parents=True, exist_ok=True)
        (slot / path).write_bytes(data)
    slots.complete(artifact.digest, artifact.version, artifact.info.security_version)
    slots.activate(artifact.version, "", 0)
    trial.confirm(root)

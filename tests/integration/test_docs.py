# SPDX-License-Identifier: Apache-2.0
"""What the documentation prints is what the commands take, and the printed walk-through works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edgeagent.cli import _parser as agent_parser
from edgefleet.cli import parser as fleet_parser
from examples.demo.processes import BIN, FleetManager
from tests.support import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "boards").glob("*/README.md")),
]
COMMAND = re.compile(r"(?:^|[`$]\s*|\s|/)(edgefleet|edgeagent) ((?:[a-z-]+ )?[^`\n]*)")


def printed_commands() -> list[tuple[str, str, str]]:
    """(document, program, arguments) of every full command line in a code span or block."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        spans = re.findall(r"```(?:sh)?\n(.*?)```", text, re.S) + re.findall(
            r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)
        )
        for line in "\n".join(spans).splitlines():
            match = COMMAND.search(line.split("  #")[0])
            if match and "…" not in line and "|" not in match[2] and match[2].strip():
                arguments = match[2].split(" > ")[0].split(", then")[0].strip()
                if re.match(
                    r"(up|things|search|job|diagnostics|device|artifact|run|status|doctor|provision)\b", arguments
                ):
                    found.append((document.name, match[1], arguments))
    return found


@pytest.mark.parametrize(("document", "program", "arguments"), printed_commands())
def test_every_printed_command_is_one_that_the_program_takes(document: str, program: str, arguments: str) -> None:
    parser = fleet_parser() if program == "edgefleet" else agent_parser()
    parser.parse_args(shlex.split(arguments.replace("…", "x")))


def test_the_documents_print_commands() -> None:
    assert len(printed_commands()) > 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walk")


def run(fleet: FleetManager, folder: Path, line: str) -> str:
    program, *arguments = shlex.split(line)
    result = subprocess.run(
        [str(BIN / program), *arguments],
        cwd=folder,
        env=fleet.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, (line, result.stdout, result.stderr)
    return result.stdout


def test_the_walk_through_from_a_key_to_a_prepared_device_and_its_job(fleet: FleetManager, folder: Path) -> None:
    app = ROOT / "examples" / "demo" / "apps" / "v1"
    run(fleet, folder, "edgefleet artifact keygen release.pem")
    run(fleet, folder, "edgefleet artifact trust release.pem --out trust.json")
    run(fleet, folder, f"edgefleet artifact build {app} --out v1 --name app --version 1.0.0 --board ESP32_GENERIC")
    run(fleet, folder, "edgefleet artifact sign v1 --key release.pem")
    assert "valid" in run(fleet, folder, "edgefleet artifact verify v1 --trust trust.json")
    (folder / "job.json").write_text(run(fleet, folder, "edgefleet artifact publish v1"))
    said = run(
        fleet,
        folder,
        "edgefleet device prepare dev1 --board ESP32_GENERIC --serial dev1 --application v1 --trust trust.json",
    )
    assert "mpremote cp -r dev1/. : + reset" in said
    files = {str(path.relative_to(folder / "dev1")) for path in (folder / "dev1").rglob("*") if path.is_file()}
    assert {
        "boot.py",
        "main.py",
        "stage0.py",
        "agent.json",
        "certs/ca.der",
        "certs/claim-key.der",
        "slots/a.idx",
    } <= files
    assert not [name for name in files if name.endswith(".py") and name not in ("boot.py", "main.py", "stage0.py")]
    run(fleet, folder, "edgefleet device prepare pi1 --board linux --serial pi1")
    (folder / "one.csv").write_text("SerialNumber\ndev1\n")
    (folder / "template.json").write_text(
        '{"Parameters":{"SerialNumber":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing",'
        '"Properties":{"ThingName":{"Ref":"SerialNumber"}}}}}'
    )
    run(fleet, folder, "edgefleet things register one.csv --template template.json")
    assert "dev1" in run(fleet, folder, "edgefleet things list")
    assert "dev1" in run(fleet, folder, "edgefleet search thingName:dev*")
    run(fleet, folder, "edgefleet job create update-1 --document job.json --target thing/dev1")
    shown = json.loads(run(fleet, folder, "edgefleet job show update-1 --json"))
    assert "update-1" in json.dumps(shown)

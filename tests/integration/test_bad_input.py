# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear line naming what is wrong, exit code 2 (agent.json: 78), no traceback, nothing half-applied."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import BIN, FleetManager
from tests.support import ROOT

TEMPLATE = (ROOT / "examples" / "demo" / "templates" / "factory.json").read_text()
HEADER = "SerialNumber,Type,Group,Hardware,Site\n"
FILES = {
    "template.json": TEMPLATE,
    "not-json": "{",
    "unknown-type.json": '{"Resources":{"thing":{"Type":"AWS::IoT::Nope","Properties":{}}}}',
    "dangling-ref.json": TEMPLATE.replace('"Ref": "Hardware"', '"Ref": "Nowhere"'),
    "good.csv": HEADER + "d-1,ESP32,boards,ESP32_GENERIC,berlin\n",
    "bad-line.csv": HEADER + "with space,ESP32,boards,ESP32_GENERIC,berlin\n",
    "short-line.csv": HEADER + "d-1,ESP32\n",
    "no-columns.csv": "SerialNumber\nd-1\n",
    "empty.csv": "",
    "claim-without-key.json": json.dumps({"endpoint": "h", "ca": "ca", "claim": {"certificate": "c", "template": "t"}}),
    "bad-port.json": json.dumps({"endpoint": "h", "port": 0, "ca": "ca"}),
    "garbage.pem": "garbage",
    "bad-ca.json": json.dumps(
        {"endpoint": "h", "ca": "garbage.pem", "thing_name": "t", "certificate": "garbage.pem", "key": "garbage.pem"}
    ),
    "list.json": "[]",
}
CASES = [
    # command, then what the one line must name
    (["edgefleet", "things", "register", "good.csv", "--template", "not-json"], "not-json"),
    (["edgefleet", "things", "register", "good.csv", "--template", "unknown-type.json"], "Resources.thing.Type"),
    (["edgefleet", "things", "register", "good.csv", "--template", "dangling-ref.json"], "Nowhere"),
    (["edgefleet", "things", "register", "no-columns.csv", "--template", "template.json"], "Type, Group"),
    (["edgefleet", "things", "register", "empty.csv", "--template", "template.json"], "header"),
    (["edgefleet", "things", "register", "missing.csv", "--template", "template.json"], "missing.csv"),
    (["edgefleet", "job", "create", "j", "--document", "not-json", "--target", "thing/anchor"], "not-json"),
    (["edgefleet", "job", "create", "j", "--document", "missing", "--target", "thing/anchor"], "missing"),
    (["edgefleet", "job", "create", "not an id", "--operation", "reboot", "--target", "thing/anchor"], "jobId"),
    (["edgefleet", "job", "create", "j", "--operation", "reboot", "--target", "anchor"], "--target"),
    (["edgefleet", "search", "thingName:("], "query"),
    (["edgefleet", "artifact", "inspect", "artifact"], "envelope"),
    (["edgefleet", "artifact", "sign", "artifact", "--key", "garbage.pem"], "envelope"),
    (["edgefleet", "artifact", "build", "missing-app", "--name", "a", "--version", "1", "--board", "X", "--out", "o"],
     "missing-app"),
    (["edgefleet", "device", "prepare", "d", "--board", "ESP32_GENERIC", "--serial", "s", "--ca", "garbage.pem"],
     "garbage.pem"),
    (["edgefleet", "device", "prepare", "d", "--board", "linux", "--serial", "s", "--trust", "list.json"], "list.json"),
    (["edgefleet", "up", "--data", "x", "--mqtt-port", "99999"], "mqtt_port"),
    (["edgeagent", "run", "--config", "missing.json"], "missing.json"),
    (["edgeagent", "run", "--config", "not-json"], "not-json"),
    (["edgeagent", "run", "--config", "claim-without-key.json"], "key"),
    (["edgeagent", "run", "--config", "bad-port.json"], "port"),
    (["edgeagent", "run", "--config", "bad-ca.json"], "ca"),
    (["edgeagent", "run", "--supervise", "--config", "bad-ca.json"], "ca"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, judge: Judge) -> Path:
    judge.iot.create_thing(thingName="anchor")
    made = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (made / name).write_text(text)
    (made / "artifact").mkdir()
    (made / "artifact" / "envelope").write_bytes(b"EAM1\0\5hello\0")
    (made / "artifact" / "blocks").write_bytes(b"")
    (made / "artifact" / "payload").write_bytes(b"")
    return made


def run(fleet: FleetManager, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=folder,
        env={**fleet.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(("command", "named"), CASES, ids=[" ".join(case[0][:7]) for case in CASES])
def test_one_clear_line(fleet: FleetManager, judge: Judge, folder: Path, command: list[str], named: str) -> None:
    result = run(fleet, folder, command)
    said = [line for line in result.stderr.splitlines() if "is not used" not in line]
    assert result.returncode == (78 if command[0] == "edgeagent" else 2), (result.stdout, result.stderr)
    assert len(said) == 1, result.stderr
    assert named in said[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert judge.search("*") == ["anchor"]
    assert judge.iot.list_jobs()["jobs"] == []


@pytest.mark.parametrize(("file", "named"), [("bad-line.csv", "thingName"), ("short-line.csv", "columns")])
def test_a_bad_line_is_reported_with_its_number(fleet: FleetManager, folder: Path, file: str, named: str) -> None:
    result = run(fleet, folder, ["edgefleet", "things", "register", file, "--template", "template.json"])
    assert result.returncode == 2
    said = [line for line in (result.stdout + result.stderr).splitlines() if file in line and "2" in line]
    assert len(said) == 1, (result.stdout, result.stderr)
    assert named in said[0]

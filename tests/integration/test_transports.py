# SPDX-License-Identifier: Apache-2.0
"""A host's whole agent over each transport: provisioned by claim, a job with an upload, a job over a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from tests.device.transport_contract import AWS
from tests.support import ROOT

TRANSPORTS = {"builtin": "builtin", "paho": "paho", "awsiotsdk": AWS, "default": None}


@contextmanager
def agent(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`edgeagent run --supervise` with the agent.json of `folder`; its output goes to agent.log."""
    with (folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeagent.cli", "run", "--supervise", "--config", str(folder / "agent.json")],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_host_provisions_itself_and_does_its_jobs(
    fleet: FleetManager, judge: Judge, tmp_path: Path, name: str
) -> None:
    thing = f"host-{name}"
    ready = fleet.ready
    config: dict[str, Any] = {
        "endpoint": "localhost",
        "port": ready["mqtt_port"],
        "ca": ready["ca"],
        "state_dir": str(tmp_path / "state"),
        "attributes": {"transport": name},
        "claim": {
            "certificate": ready["claim_certificate"],
            "key": ready["claim_key"],
            "template": ready["template"],
            "parameters": {"SerialNumber": thing},
        },
    }
    if TRANSPORTS[name] is not None:
        config["transport"] = TRANSPORTS[name]
    (tmp_path / "agent.json").write_text(json.dumps(config))

    def log() -> str:
        return (tmp_path / "agent.log").read_text()

    with agent(tmp_path):
        wait_for(
            lambda: _reported(judge, thing) == name or None,
            lambda: f"{thing} did not report: {log()}",
            30,
        )
        arn = judge.iot.describe_thing(thingName=thing)["thingArn"]
        for operation in ("diagnostics", "reboot"):
            job = f"{operation}-{name}"
            judge.iot.create_job(jobId=job, targets=[arn], document=json.dumps({"operation": operation}))
            assert judge.finished(job, [thing], 40) == {"SUCCEEDED": 1}, log()
    assert judge.certificates(thing)


def _reported(judge: Judge, thing: str) -> Any:
    try:
        return judge.reported(thing).get("transport")
    except Exception:  # botocore makes the class of ResourceNotFoundException when it runs
        return None

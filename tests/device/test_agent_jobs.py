# SPDX-License-Identifier: Apache-2.0
"""Conditions, step timers and steps of the agent on CPython against the real broker and jobs service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.device.ground import Ground
from tests.device.test_agent import _hasty, make, on, running

__all__ = ["_hasty"]  # the fixture holds here too


def test_a_condition_is_evaluated_by_the_device(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        starts = [19000]
        agent.attribute("engineStarts", lambda: starts[0])
        document = {"operation": "calibrate", "condition": "engineStarts >= 20000"}

        @agent.job("calibrate")
        async def calibrate(job: Any) -> dict[str, Any]:
            return {"offset": 12}

        async with running(agent):
            site.job("early", "pump", document)
            assert await site.outcome("early", "pump") == (
                "SUCCEEDED",
                {"skipped": "engineStarts >= 20000", "reason": "condition not met: engineStarts is 19000"},
            )
            starts[0] = 20000
            site.job("due", "pump", document)
            assert await site.outcome("due", "pump") == ("SUCCEEDED", {"offset": "12"})
            site.job("bad", "pump", {"operation": "calibrate", "condition": "engineStarts => 1"})
            status, details = await site.outcome("bad", "pump")
            assert status == "REJECTED"
            assert "position 14" in details["reason"]

    on(tmp_path, scenario)


def test_the_service_takes_the_step_timer_of_a_document(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        topic = "$aws/things/pump/jobs/j/get"

        @agent.job("calibrate")
        async def calibrate(job: Any) -> dict[str, Any]:
            first = (await agent.requests.call(topic, {}))["execution"]["approximateSecondsBeforeTimedOut"]
            job.minutes = 60
            await job.progress(50)
            second = (await agent.requests.call(topic, {}))["execution"]["approximateSecondsBeforeTimedOut"]
            job.minutes = -1
            await job.progress(60)
            third = "approximateSecondsBeforeTimedOut" in (await agent.requests.call(topic, {}))["execution"]
            return {"first": first <= 300, "second": 300 < second <= 3600, "third": third}

        async with running(agent):
            site.job("j", "pump", {"operation": "calibrate", "stepTimeoutInMinutes": 5})
            assert (await site.outcome("j", "pump"))[1] == {"first": "true", "second": "true", "third": "false"}

    on(tmp_path, scenario)


def test_steps_run_the_programs_that_agent_json_allows(tmp_path: Path) -> None:
    folder = tmp_path / "pump" / "handlers"
    folder.mkdir(parents=True, mode=0o755)
    path = folder / "install-packages.sh"
    path.write_text('#!/bin/sh\nshift\necho "installed $*"\n')
    path.chmod(0o755)

    async def scenario(site: Ground) -> None:
        action = {"name": "Install", "type": "runHandler", "runAsUser": ""}
        action["input"] = {"handler": "install-packages.sh", "args": ["vim curl"], "path": "default"}  # type: ignore[assignment]
        document = {"version": "1.0", "includeStdOut": "true", "steps": [{"action": action}]}
        rules = {"path": "handlers", "allow": ["install-packages.sh"]}
        async with running(make(site, "pump", handlers=rules)):
            site.job("j", "pump", document)
            status, details = await site.outcome("j", "pump")
        assert (status, details["stdout"]) == ("SUCCEEDED", "installed vim curl ")
        async with running(make(site, "other")):
            site.job("k", "other", json.loads(json.dumps(document)))
            status, details = await site.outcome("k", "other")
        assert status == "REJECTED"
        assert "agent.json has no handlers" in details["reason"]

    on(tmp_path, scenario)


def test_a_cancelled_steps_job_ends_its_program(tmp_path: Path) -> None:
    folder = tmp_path / "pump" / "handlers"
    folder.mkdir(parents=True, mode=0o755)
    path = folder / "slow.sh"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    path.chmod(0o755)

    async def scenario(site: Ground) -> None:
        action = {"name": "Slow", "type": "runCommand", "input": {"command": "slow.sh"}}
        async with running(make(site, "pump", handlers={"path": "handlers", "allow": ["slow.sh"]})):
            site.job("j", "pump", {"version": "1.0", "steps": [{"action": action}]})
            pid = tmp_path / "pid"
            await site.until(lambda: pid.exists() and pid.read_text().strip(), "the program")
            running_program = Path("/proc") / pid.read_text().strip()
            assert running_program.exists()
            site.cancel("j")
            await site.until(lambda: not running_program.exists(), "its end")
        assert site.execution("j", "pump")[0] == "CANCELED"

    on(tmp_path, scenario)

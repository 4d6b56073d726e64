# SPDX-License-Identifier: Apache-2.0
"""The host's command: exit statuses, one line for what is wrong, never a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgeagent import __version__, cli
from edgefleet.pki import Authority
from tests.device.ground import Ground, ground
from tests.support import ROOT

APPLICATION = """
from edgeagent import Agent
VERSION = "{version}"
agent = Agent.from_file(version=VERSION)

@agent.job("greet")
async def greet(job):
    return {{"hello": VERSION}}

def main():
    agent.run()
"""

# As if somebody stopped the service now.
STOP = "import signal\ndef stop():\n    signal.raise_signal(signal.SIGTERM)\n"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "edgeagent.cli", *arguments]


def write_config(folder: Path, **members: Any) -> Path:
    authority = Authority.load_or_create(folder / "pki")
    certificate, key = authority.issue_device(None)
    assert key is not None
    for name, text in (("ca.pem", authority.ca_pem), ("c", certificate), ("k", key)):
        (folder / name).write_text(text)
    data = {"endpoint": "127.0.0.1", "port": 1, "ca": "ca.pem", "thing_name": "t", "certificate": "c", "key": "k"}
    data.update(state_dir=str(folder / "state"), slots_dir=str(folder / "slots"), **members)
    path = folder / "agent.json"
    path.write_text(json.dumps(data))
    return path


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == __version__ + "\n"


@pytest.mark.parametrize("name", ["run", "provision", "status", "doctor"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is missing"), ("{", "not valid JSON"), ('{"endpoint": 7}', "endpoint")],
)
def test_a_wrong_configuration_is_one_line_and_status_78(
    name: str, content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.json"
    if content is not None:
        path.write_text(content)
    assert cli.main([name, "--config", str(path)]) == 78
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_supervisor_says_a_wrong_configuration_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--supervise", "--config", str(tmp_path / "none.json")]) == 78
    assert "none.json" in capsys.readouterr().err


def test_status_of_a_device_that_never_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json", "--config", str(write_config(tmp_path))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["thing"] == "t"
    assert found["job"] is None
    assert found["application"]["state"] == "none"
    assert not (tmp_path / "state").exists()
    assert cli.main(["status", "--config", str(tmp_path / "agent.json")]) == 0
    assert "not provisioned" not in capsys.readouterr().out


def at_site(folder: Path, scenario: Callable[[Ground], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with ground(folder / "site") as site:
            await asyncio.wait_for(scenario(site), 40)

    asyncio.run(main())


def slot(folder: Path, text: str) -> None:
    (folder / "slots" / "a").mkdir(parents=True)
    (folder / "slots" / "a" / "app.py").write_text(text)


@pytest.mark.parametrize("application", [True, False])
def test_a_supervised_agent_runs_its_application_or_none_reboots_and_stops(tmp_path: Path, application: bool) -> None:
    async def scenario(site: Ground) -> None:
        folder = tmp_path / "pump"
        path = folder / "agent.json"
        path.parent.mkdir()
        path.write_text(json.dumps(site.enroll("pump", folder)))
        if application:
            slot(folder, APPLICATION.format(version="1.0.0"))
        process = await asyncio.create_subprocess_exec(
            *command("run", "--supervise", "--config", str(path)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            site.job("greet", "pump", {"operation": "greet"})
            expected = ("SUCCEEDED", {"hello": "1.0.0"})
            if not application:
                expected = ("REJECTED", {"reason": "unknown operation greet"})
            assert await site.outcome("greet", "pump") == expected
            site.job("again", "pump", {"operation": "reboot"})
            assert (await site.outcome("again", "pump"))[0] == "SUCCEEDED"
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            output = (await asyncio.wait_for(process.stdout.read(), 10)).decode()
            assert await process.wait() == 0, output
            assert "Traceback" not in output
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    at_site(tmp_path, scenario)


def test_the_log_can_be_json_lines_or_carry_the_priorities_of_the_journal(tmp_path: Path) -> None:
    text = "from edgeagent import log\ndef main():\n    log.warning('pump', 'oil %d %%', 7)\n    stop()\n"
    slot(tmp_path, STOP + text)
    path = str(write_config(tmp_path))

    def lines(form: str) -> list[str]:
        result = subprocess.run(
            command("run", "--config", path, "--log", form), cwd=ROOT, capture_output=True, text=True, check=False
        )
        return result.stdout.splitlines()

    found = json.loads(lines("json")[0])
    assert abs(found.pop("time") - time.time()) < 60
    assert found == {"level": "WARNING", "area": "pump", "message": "oil 7 %"}
    assert lines("journal")[0] == "<4>pump oil 7 %"
    assert lines("text")[0].endswith(" WARNING pump oil 7 %")


def test_standard_output_that_is_the_journals_gets_its_form(tmp_path: Path) -> None:
    slot(tmp_path, STOP + "from edgeagent import log\ndef main():\n    log.error('pump', 'no oil')\n    stop()\n")
    path = str(write_config(tmp_path))
    with (tmp_path / "journal").open("wb+") as journal:
        status = os.fstat(journal.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(command("run", "--config", path), cwd=ROOT, env=environment, stdout=journal, check=False)
    assert (tmp_path / "journal").read_text() == "<3>pump no oil\n"


def test_an_application_that_crashes_asks_for_a_restart_and_is_recorded(tmp_path: Path) -> None:
    slot(tmp_path, "def main():\n    raise RuntimeError('no oil')\n")
    result = subprocess.run(
        command("run", "--config", str(write_config(tmp_path))),
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 75
    assert "no oil" in result.stdout


def test_the_modules_of_the_slot_are_those_that_run(tmp_path: Path) -> None:
    slot(tmp_path, STOP + "import helper\ndef main():\n    print('ran', helper.NAME)\n    stop()\n")
    (tmp_path / "slots/a/helper.py").write_text("NAME = 'from the slot'\n")
    result = subprocess.run(
        command("run", "--config", str(write_config(tmp_path))),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0
    assert "ran from the slot" in result.stdout

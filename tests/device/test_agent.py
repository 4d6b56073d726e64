# SPDX-License-Identifier: Apache-2.0
"""The agent on CPython against the real broker, jobs, shadow and upload services."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgeagent import __version__, config
from edgeagent.agent import Agent
from edgeagent.mqtt.backoff import Backoff
from edgeagent.ports.linux import LinuxPort
from tests.device.ground import Ground, ground


class Restart(BaseException):
    """What a test's machine does instead of ending the process."""


class Machine(LinuxPort):
    """A LinuxPort that can be restarted inside one process."""

    def __init__(self, settings: Any, boot: int = 1) -> None:
        super().__init__(settings)
        self.boot = boot
        self.feeds = 0
        self.restarted = asyncio.Event()
        self.agent: Any = None

    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def reset(self) -> Any:
        """As if the process ended: nothing of the runner goes on."""
        self.agent._runner._step = asyncio.Event().wait
        self.restarted.set()
        raise Restart

    def watchdog(self, seconds: int) -> Any:
        return self

    def feed(self) -> None:
        self.feeds += 1


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 0.05)
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)


def on(folder: Path, scenario: Callable[[Ground], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with ground(folder / "site") as site:
            await asyncio.wait_for(scenario(site), 40)

    asyncio.run(main())


def make(site: Ground, thing: str, boot: int = 1, version: str = "1.2.3", **members: Any) -> Agent:
    folder = site.folder.parent / thing
    path = folder / "agent.json"
    if not path.exists():
        data = site.enroll(thing, folder)
        data.update(members)
        path.write_text(json.dumps(data))
    settings = config.load(str(path))
    return Agent(settings, Machine(settings, boot), version, str(path))


@contextlib.asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[Agent]:
    agent.port.agent = agent
    task = asyncio.create_task(agent.start())
    try:
        await asyncio.wait_for(agent.connected.wait(), 15)
        yield agent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_the_shadow_reports_facts_and_attributes_of_file_and_application(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump", attributes={"type": "PUMP"})
        agent.attribute("engineStarts", lambda: 21000)
        async with running(agent):
            await site.until(lambda: "engineStarts" in site.reported("pump"), "the report")
        reported = site.reported("pump")
        assert reported["engineStarts"] == 21000
        assert reported["type"] == "PUMP"
        assert reported["firmware"] == "1.2.3"
        assert reported["agent"] == __version__
        assert {"board", "chip", "runtime", "port"} <= set(reported)

    on(tmp_path, scenario)


def test_an_application_job_runs_and_reports(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")

        @agent.job("calibrate")
        async def calibrate(job: Any) -> dict[str, Any]:
            await job.progress(50, step="zeroing")
            assert site.execution(job.id, "pump") == ("IN_PROGRESS", {"percent": "50", "step": "zeroing"})
            return {"offset": 12}

        async with running(agent):
            site.job("j", "pump", {"operation": "calibrate"})
            assert await site.outcome("j", "pump") == ("SUCCEEDED", {"offset": "12"})

    on(tmp_path, scenario)


def test_several_jobs_queued_while_the_device_was_off_all_run(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        order: list[str] = []

        @agent.job("work")
        async def work(job: Any) -> None:
            order.append(job.id)

        for n in range(3):
            site.job(f"j{n}", "pump", {"operation": "work"})
        site.job("j3", "pump", {"operation": "dance"})
        async with running(agent):
            assert (await site.outcome("j3", "pump"))[0] == "REJECTED"
        assert order == ["j0", "j1", "j2"]

    on(tmp_path, scenario)


def test_a_diagnostics_bundle_arrives_as_its_details_say(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        async with running(make(site, "pump")):
            site.job("bundle-1", "pump", {"operation": "diagnostics"})
            status, details = await site.outcome("bundle-1", "pump")
        assert status == "SUCCEEDED"
        bundle = site.bundle("pump", "bundle-1")
        assert len(bundle) == int(details["bytes"])
        assert hashlib.sha256(bundle).hexdigest() == details["sha256"]
        sections = {json.loads(line)["section"] for line in bundle.splitlines()}
        assert {"facts", "memory", "boot", "counters", "attributes", "log"} <= sections

    on(tmp_path, scenario)


def test_a_reboot_job_succeeds_after_the_restart_and_not_before(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        first = make(site, "pump", boot=1)
        async with running(first):
            site.job("j", "pump", {"operation": "reboot"})
            await asyncio.wait_for(first.port.restarted.wait(), 10)
        assert site.execution("j", "pump")[0] == "IN_PROGRESS"
        async with running(make(site, "pump", boot=2)):
            status, details = await site.outcome("j", "pump")
        assert status == "SUCCEEDED"
        assert details["bootId"] == "boot-2"

    on(tmp_path, scenario)


def test_a_cancelled_execution_stops_its_handler_at_once(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        begun, ended = asyncio.Event(), asyncio.Event()

        @agent.job("work")
        async def work(job: Any) -> None:
            begun.set()
            try:
                await asyncio.sleep(100)
            finally:
                ended.set()

        async with running(agent):
            site.job("j", "pump", {"operation": "work"})
            await asyncio.wait_for(begun.wait(), 10)
            site.cancel("j")
            await asyncio.wait_for(ended.wait(), 10)
            site.job("k", "pump", {"operation": "dance"})
            assert (await site.outcome("k", "pump"))[0] == "REJECTED"
        assert site.execution("j", "pump")[0] == "CANCELED"

    on(tmp_path, scenario)


def test_a_broker_restart_in_the_middle_of_a_job_costs_nothing(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        begun, release = asyncio.Event(), asyncio.Event()
        runs: list[str] = []

        @agent.job("work")
        async def work(job: Any) -> dict[str, Any]:
            runs.append(job.id)
            begun.set()
            await release.wait()
            await job.progress(90)
            return {"done": True}

        async with running(agent):
            site.job("j", "pump", {"operation": "work"})
            await asyncio.wait_for(begun.wait(), 10)
            await site.stop()
            await site.until(lambda: not agent.connected.is_set(), "the loss of the link")
            release.set()
            await site.start()
            assert await site.outcome("j", "pump") == ("SUCCEEDED", {"done": "true"})
        assert runs == ["j"]
        assert agent.counters["connects"] == 2

    on(tmp_path, scenario)


def test_an_attribute_that_changed_is_all_that_is_reported_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagent.agent.TICKS", 1)
    monkeypatch.setattr("edgeagent.agent.TICK_S", 0.05)

    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        count = [1]
        agent.attribute("engineStarts", lambda: count[0])
        async with running(agent):
            await site.until(lambda: site.reported("pump").get("engineStarts") == 1)
            count[0] = 2
            await site.until(lambda: site.reported("pump").get("engineStarts") == 2, "the change")

    on(tmp_path, scenario)


def test_the_watchdog_is_fed_while_connected_and_while_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.agent.TICK_S", 0.01)

    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        async with running(agent):
            before = agent.port.feeds
            await site.until(lambda: agent.port.feeds > before + 3, "feeding while connected")
            await site.stop()
            before = agent.port.feeds
            await site.until(lambda: agent.port.feeds > before + 3, "feeding while not")
            await site.start()
            await asyncio.wait_for(agent.connected.wait(), 10)

    on(tmp_path, scenario)


def test_a_dead_runner_is_started_again(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")

        @agent.job("work")
        async def work(job: Any) -> None:
            return None

        async with running(agent):
            runner = agent._runner
            assert runner is not None
            step = runner._step

            async def defect() -> bool:
                runner._step = step  # type: ignore[method-assign]
                raise ZeroDivisionError

            runner._step = defect  # type: ignore[method-assign]
            site.job("j", "pump", {"operation": "work"})
            assert (await site.outcome("j", "pump"))[0] == "SUCCEEDED"

    on(tmp_path, scenario)


def test_the_config_job_changes_what_it_may_and_keeps_the_rest(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump", attributes={"site": "berlin", "line": 1})
        async with running(agent):
            change = {"keepalive": 90, "attributes": {"line": 2, "hall": "A"}}
            site.job("j", "pump", {"operation": "config", "config": change})
            assert await site.outcome("j", "pump") == ("SUCCEEDED", {"changed": "attributes, keepalive"})
        written = config.load(str(agent.config_path))
        assert written.keepalive == 90
        assert written.attributes == {"site": "berlin", "line": 2, "hall": "A"}
        assert written.endpoint == "127.0.0.1"
        assert agent.attributes.full()["line"] == 2

    on(tmp_path, scenario)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"keepalive": 5}, "keepalive"),
        ({"endpoint": "evil.example"}, "endpoint"),
        ({"claim": {}}, "claim"),
        ({"attributes": {"a b": 1}}, "a b"),
        ({"attributes": [1]}, "attributes"),
        ({"log_level": "loud", "keepalive": 90}, "log_level"),
        ({"attributes": {"x": "y" * 8200}}, "larger than"),
        ({}, "config"),
        (7, "config"),
    ],
)
def test_a_bad_config_change_fails_by_name_and_changes_nothing(tmp_path: Path, change: Any, named: str) -> None:
    from edgeagent.errors import AgentError
    from edgeagent.jobs import config as job_config

    path = tmp_path / "agent.json"
    text = json.dumps({"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"})
    path.write_text(text)
    agent = Agent(config.load(str(path)), Machine(config.load(str(path))), "1", str(path))

    class Job:
        document = {"operation": "config", "config": change}

    Job.agent = agent  # type: ignore[attr-defined]
    with pytest.raises(AgentError, match=named):
        asyncio.run(job_config.run(Job()))
    assert path.read_text() == text
    assert "keepalive" not in path.read_text()


def health(*checks: Callable[[], Any]) -> tuple[bool, str]:
    settings = config.parse({"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"})
    agent = Agent(settings, Machine(settings))
    for check in checks:
        agent.health_check(check)
    return asyncio.run(agent.healthy())


def test_an_application_without_health_checks_is_healthy() -> None:
    assert health() == (True, "")


def test_health_checks_may_return_nothing_true_or_a_pair_and_may_be_async() -> None:
    async def later() -> bool:
        return True

    assert health(lambda: None, lambda: True, lambda: (True, ""), later) == (True, "")


def test_an_unhealthy_check_is_named_with_its_reason() -> None:
    def oil() -> Any:
        return False, "no pressure"

    def pump() -> Any:
        raise OSError("stuck")

    def valve() -> Any:
        return False

    assert health(oil) == (False, "oil: no pressure")
    assert health(pump) == (False, "pump: OSError: stuck")
    assert health(valve) == (False, "valve: returned False")


def until_restart(
    monkeypatch: pytest.MonkeyPatch, session: Callable[[], Coroutine[Any, Any, None]], runner: Any = None
) -> None:
    """Run an agent with these sessions and this runner to the restart of its device."""
    settings = config.parse({"endpoint": "e", "ca": "ca", "thing_name": "t", "certificate": "c", "key": "k"})
    agent = Agent(settings, Machine(settings))
    agent._runner = runner

    def reset() -> None:
        raise Restart

    monkeypatch.setattr(agent, "_session", session)
    monkeypatch.setattr(agent.port, "reset", reset)
    with pytest.raises(Restart):
        asyncio.run(agent.start())


def test_lack_of_memory_that_stays_restarts_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = [MemoryError("heap"), OSError(5), *[MemoryError("heap")] * 9]

    async def session() -> None:
        raise failures.pop(0)

    until_restart(monkeypatch, session)
    assert len(failures) == 4

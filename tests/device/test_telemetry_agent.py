# SPDX-License-Identifier: Apache-2.0
"""Telemetry beside jobs, on the real broker with a policy that does not allow its topic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeagent.mqtt.backoff import Backoff
from tests.device.ground import Ground
from tests.device.test_agent import make, on, running


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)


def test_a_policy_that_denies_the_topic_does_not_keep_jobs_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor if telemetry has waited for longer than the agent, when there is a link again."""

    class Slow(Backoff):
        def next(self) -> float:
            return 4

    async def scenario(site: Ground) -> None:
        monkeypatch.setattr("edgeagent.agent.Backoff", Slow)
        agent = make(site, "pump", telemetry={"flush": 0, "topic": "dt/forbidden"})

        @agent.job("work")
        async def work(job: Any) -> None:
            pass

        agent.telemetry("t", 1)
        async with running(agent):
            for n in range(2):
                site.job(f"j{n}", "pump", {"operation": "work"})
                assert (await site.outcome(f"j{n}", "pump"))[0] == "SUCCEEDED"
        assert agent.part("telemetry").box.records == 1, "kept until somebody allows it"

    on(tmp_path, scenario)


def test_the_optional_parts_are_not_loaded_by_an_application_without_them(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        async with running(agent):
            await asyncio.sleep(0)
        assert agent._parts == {}
        assert not (tmp_path / "pump" / "state" / "outbox").exists()

    on(tmp_path, scenario)


def test_a_series_declared_while_the_agent_runs_is_kept_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 0.05)

    async def scenario(site: Ground) -> None:
        agent = make(site, "pump", telemetry=None)
        async with running(agent):
            agent.series("t", every=1, aggregate="sum")
            for _ in range(5):
                agent.telemetry("t", 2)
            box = agent.part("telemetry").box
            await site.until(lambda: box.records == 1, "the window to end")
            assert b'"t",10]' in box.take(1000)[2]

    on(tmp_path, scenario)

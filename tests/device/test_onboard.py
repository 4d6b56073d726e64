# SPDX-License-Identifier: Apache-2.0
"""What the template's deviceConfiguration becomes: members of agent.json, and values for the application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent import config, log
from edgeagent.agent import Agent
from edgeagent.onboard import configure

BEFORE = {
    "endpoint": "e",
    "ca": "ca.pem",
    "thing_name": "t",
    "certificate": "c",
    "key": "k",
    "state_dir": "state",
    "keepalive": 60,
}


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.json"
        self.path.write_text(json.dumps(BEFORE))
        self.agent = Agent.from_file(str(self.path))
        log.recent.clear()

    def configure(self, given: Any) -> dict[str, Any]:
        """The members that agent.json has gained or changed."""
        configure(self.agent, given)
        config.load(str(self.path))  # it is always one that can be loaded
        after: dict[str, Any] = json.loads(self.path.read_text())
        assert set(BEFORE) <= set(after)
        return {name: after[name] for name in after if after[name] != BEFORE.get(name)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_members_a_job_may_change_are_taken_over_and_in_force(world: World) -> None:
    given = {"keepalive": "300", "log_level": "warning", "confirm_within": 30, "Url": "https://x"}
    assert world.configure(given) == {
        "keepalive": 300,
        "log_level": "warning",
        "confirm_within": 30,
        "device_configuration": {"Url": "https://x"},
    }
    assert world.agent.config.keepalive == 300
    assert world.agent.config.device_configuration == {"Url": "https://x"}
    assert Agent.from_file(str(world.path)).config.device_configuration == {"Url": "https://x"}


def test_members_that_could_cut_the_device_off_go_to_the_application_and_change_nothing(world: World) -> None:
    given = {"endpoint": "elsewhere", "key": "other", "port": "1"}
    assert world.configure(given) == {"device_configuration": given}
    assert world.agent.config.endpoint == "e"


@pytest.mark.parametrize(
    "bad",
    [
        {"keepalive": "soon"},
        {"keepalive": "7"},
        {"log_level": "loud"},
        {"attributes": "x"},
        {"keepalive": None},
        {"attributes": {"a b": 1}},
    ],
)
def test_a_member_with_a_wrong_value_is_logged_and_the_applications_part_kept(
    world: World, bad: dict[str, Any]
) -> None:
    assert world.configure({**bad, "Url": "https://x"}) == {"device_configuration": {"Url": "https://x"}}
    assert any("not kept: ConfigError: " in line for line in log.recent), log.recent


@pytest.mark.parametrize("bad", [{"a": 1}, {"a": {"b": "c"}}, {"a": "x" * 9000}])
def test_what_cannot_be_kept_leaves_the_file_as_it_was(world: World, bad: dict[str, Any]) -> None:
    assert world.configure(bad) == {}
    assert len(log.recent) == 2


@pytest.mark.parametrize("nothing", [None, {}, [], "text"])
def test_nothing_given_writes_nothing(world: World, nothing: Any) -> None:
    stamp = world.path.stat().st_mtime_ns
    assert world.configure(nothing) == {}
    assert world.path.stat().st_mtime_ns == stamp


def test_a_file_that_cannot_be_written_does_not_keep_the_device_from_its_identity(world: World) -> None:
    (world.path.parent / "agent.json.new").mkdir()
    assert world.configure({"keepalive": "300"}) == {}
    assert log.recent


def test_an_agent_without_a_file_keeps_nothing(tmp_path: Path) -> None:
    agent = Agent(config.parse({**BEFORE, "state_dir": str(tmp_path)}))
    configure(agent, {"keepalive": "300"})
    assert agent.config.keepalive == 60

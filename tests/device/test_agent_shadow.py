# SPDX-License-Identifier: Apache-2.0
"""Desired state and presence of a CPython agent, against the real broker and shadow service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent import config, topics
from edgeagent.mqtt.backoff import Backoff
from edgeagent.mqtt.client import Client
from edgeagent.ports.linux import LinuxPort
from edgefleet import names
from edgefleet.messages import Request
from edgefleet.registry import policies
from edgefleet.shadow import device_plane
from edgefleet.shadow import service as shadows
from tests.device.ground import POLICY, Ground
from tests.device.test_agent import make, on, running

TOPIC = "status/{thing}"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 0.05)


def want(site: Ground, thing: str, name: str | None, **desired: Any) -> None:
    """As an operator's UpdateThingShadow."""
    body = json.dumps({"state": {"desired": desired}}).encode()
    request = Request(topics.shadow(thing, "update", name), body, "operator", "0" * 64)
    site.commit(lambda tx: device_plane.handle(tx, request))


def settled(site: Ground, thing: str, name: str | None) -> bool:
    """Is everything that is desired reported?"""
    with site.store.reading() as tx:
        shadow = shadows.find(tx, thing, name)
    assert shadow is not None
    return bool(shadow.state["desired"].items() <= shadow.state.get("reported", {}).items())


@pytest.mark.parametrize("name", [None, "settings"])
def test_desired_state_is_handled_and_reported_at_connect_and_as_it_changes(tmp_path: Path, name: str | None) -> None:
    async def scenario(site: Ground) -> None:
        agent = make(site, "pump")
        seen: list[Any] = []

        @agent.desired(name)
        async def apply(state: dict[str, Any]) -> dict[str, Any]:
            seen.append(state)
            return state

        want(site, "pump", name, rate=5)
        async with running(agent):
            await site.until(lambda: seen == [{"rate": 5}], "what was desired before")
            want(site, "pump", name, rate=6, mode="slow")
            await site.until(lambda: seen[-1] == {"rate": 6, "mode": "slow"}, "the change")
            await site.until(lambda: settled(site, "pump", name), "its report")
            await site.stop()
            await site.until(lambda: not agent.connected.is_set(), "the loss of the link")
            await site.start()
            await site.until(lambda: agent.connected.is_set(), "the link")
            want(site, "pump", name, rate=7)
            await site.until(lambda: seen[-1] == {"rate": 7}, "the change after a lost link")

    on(tmp_path, scenario)


class Watcher:
    """Another device that hears all presence messages."""

    def __init__(self, site: Ground, folder: Path) -> None:
        members = site.enroll("watcher", folder)
        port = LinuxPort(config.parse(members))
        self.heard: list[tuple[str, str]] = []
        self.client = Client(
            lambda: port.open_stream(
                "127.0.0.1", site.port, "localhost", members["ca"], members["certificate"], members["key"]
            ),
            "watcher",
        )
        self.client.on("status/#", lambda topic, payload: self.heard.append((topic, payload.decode())))

    async def start(self) -> None:
        await self.client.connect()
        self.task = asyncio.create_task(self.client.run())
        await self.client.subscribe(["status/pump"])


def allow_presence(site: Ground) -> None:
    own = "${iot:Connection.Thing.ThingName}"
    document = json.loads(site.commit(lambda tx: policies.require(tx, POLICY))["policyDocument"])
    document["Statement"] += [
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:RetainPublish"],
            "Resource": names.arn(f"topic/status/{own}"),
        },
        {"Effect": "Allow", "Action": ["iot:Subscribe"], "Resource": names.arn("topicfilter/status/*")},
        {"Effect": "Allow", "Action": ["iot:Receive"], "Resource": names.arn("topic/status/*")},
    ]
    site.commit(lambda tx: policies.create_version(tx, POLICY, json.dumps(document), True))
    site.authorizer.forget()


def test_presence_says_online_offline_and_speaks_for_a_device_that_vanished(tmp_path: Path) -> None:
    async def scenario(site: Ground) -> None:
        allow_presence(site)
        watcher = Watcher(site, tmp_path / "watcher")
        await watcher.start()
        agent = make(site, "pump", presence=TOPIC, transport="builtin")  # its stream can be cut
        async with running(agent):
            await site.until(lambda: watcher.heard == [("status/pump", "online")], "online")
        await site.until(lambda: watcher.heard[-1] == ("status/pump", "offline"), "a clean stop")
        async with running(agent):
            await site.until(lambda: watcher.heard[-1] == ("status/pump", "online"), "online again")
            count = len(watcher.heard)
            agent.client._writer.transport.abort()  # no DISCONNECT
            await site.until(lambda: watcher.heard[count:] == [("status/pump", "offline"), ("status/pump", "online")])
        watcher.heard.clear()
        await watcher.client.subscribe(["status/pump"])
        await site.until(lambda: watcher.heard == [("status/pump", "offline")], "what is retained")
        watcher.task.cancel()

    on(tmp_path, scenario)

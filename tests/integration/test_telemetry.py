# SPDX-License-Identifier: Apache-2.0
"""Telemetry through kill -9, power cuts and days without a link, as an independent subscriber (paho-mqtt) sees it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from hil.virtual_board import die_with_parent
from tests.integration.peer import Peer, register_device
from tests.integration.rig import Rig
from tests.support import ROOT

SEED = 20261123
SETTINGS = {"flush": 1, "every": 1, "rate": 50}
APP = ROOT / "tests" / "integration" / "telemetry_app.py"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}


class Receiver:
    """Keeps the rule of docs/telemetry.md: what is not above the highest number of its thing and id is a double."""

    def __init__(self, judge: Judge, fleet: FleetManager, folder: Path, name: str) -> None:
        policies = [policy["policyName"] for policy in judge.iot.list_policies()["policies"]]
        if "receiver" not in policies:
            judge.iot.create_policy(policyName="receiver", policyDocument=json.dumps(EVERYTHING))
        # A persistent session: nothing is missed while the fleet manager is away.
        self.peer = Peer(fleet, name, register_device(judge, folder, name, "receiver"), clean=False)
        self.connect()
        self.peer.subscribe("dt/edgeagent/+/telemetry")
        self.highest: dict[tuple[str, str], int] = {}
        self.rows: dict[str, list[list[Any]]] = {}  # by thing
        self.doubles = 0

    def connect(self) -> None:
        assert self.peer.connect()

    def read(self) -> Receiver:
        while not self.peer.messages.empty():
            topic, payload = self.peer.messages.get()
            message = json.loads(payload)
            thing = message["thing"]
            assert topic == f"dt/edgeagent/{thing}/telemetry"
            key = (thing, message["id"])
            for number, row in enumerate(message["records"], message["seq"]):
                if number > self.highest.get(key, -1):
                    self.highest[key] = number
                    self.rows.setdefault(thing, []).append(row)
                else:
                    self.doubles += 1
        return self

    def values(self, thing: str, name: str) -> list[int]:
        return [row[2] for row in self.read().rows.get(thing, []) if row[1] == name]


class Process:
    """The device: `telemetry_app.py` in a process of its own."""

    def __init__(self, config: Path, first: int, *count: str) -> None:
        self.first = first
        self.log = config.parent / f"run-{first}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(APP), str(config), str(first), *count],
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def durable(self) -> int:
        """All numbers below this one are durable."""
        return max((int(n) for n in re.findall(r"^durable (\d+)$", self.log.read_text(), re.M)), default=self.first)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def device(fleet: FleetManager, judge: Judge, folder: Path) -> Path:
    """agent.json of a Linux device."""
    credentials = register_device(judge, folder, "meter")
    path = folder / "agent.json"
    path.write_text(
        json.dumps(
            {
                "endpoint": fleet.ready["endpoint"],
                "port": fleet.mqtt_port,
                "ca": fleet.ready["ca"],
                "thing_name": "meter",
                "certificate": str(credentials.certificate),
                "key": str(credentials.key),
                "state_dir": str(folder / "state"),
                "telemetry": {**SETTINGS, "max_bytes": 1 << 24},
            }
        )
    )
    return path


def test_kill_9_at_any_moment_loses_nothing_durable_and_keeps_the_order(
    fleet: FleetManager, judge: Judge, device: Path, folder: Path
) -> None:
    receiver = Receiver(judge, fleet, folder, "receiver-1")
    rng = random.Random(SEED)
    promised: list[tuple[int, int]] = []
    for life in range(10):
        process = Process(device, life * 1_000_000)
        try:
            wait_for(lambda p=process: p.durable() > p.first or None, process.log.read_text, 20)
            time.sleep(rng.uniform(0, 1.2))  # the moment of the kill is the subject of the test
        finally:
            process.kill()
        promised.append((process.first, process.durable()))
    process = Process(device, 99_000_000, "70")
    try:
        last = wait_for(lambda: receiver.values("meter", "n")[-1:] == [99_000_069] or None, process.log.read_text, 90)
        assert last
    finally:
        process.kill()
        receiver.peer.close()
    values = receiver.values("meter", "n")
    assert values == sorted(set(values)), f"seed {SEED}: out of order or twice"
    found = set(values)
    for first, durable in promised:
        lost = [number for number in range(first, durable) if number not in found]
        assert not lost, f"seed {SEED}: durable and lost: {lost[:10]} of {first}..{durable}"
    assert sum(durable - first for first, durable in promised) > 1000
    assert len(receiver.highest) == 1, "one numbering for the life of the state folder"
    print(f"{len(values)} records, {receiver.doubles} doubles discarded")


BOARD_CODE = """
import asyncio
import sys

agent.series("sum", every=1, aggregate="sum")


async def measure():
    boot = agent.port.boot_id()
    box = agent.part("telemetry").box
    number = 0
    while True:
        if not box.buffered:
            print("durable", boot, number)
        agent.telemetry(boot, number)
        agent.telemetry("sum", 1)
        number += 1
        await asyncio.sleep(0.05)


agent.services.append(measure)
"""


class MeasuringRig(Rig):
    """A board whose application measures twenty times a second."""

    settings = {"telemetry": SETTINGS}

    def _release(self, source: Path, version: str) -> None:
        if version == "1.0.0":
            changed = self.folder / "measuring"
            changed.mkdir()
            code = (source / "app.py").read_text()
            (changed / "app.py").write_text(code.replace("\ndef main():", BOARD_CODE + "\n\ndef main():"))
            source = changed
        super()._release(source, version)

    def durable(self, boot: str) -> int:
        found = re.findall(rf"^durable {boot} (\d+)\r?$", self.board.console, re.M)
        return max(map(int, found), default=0)


def test_what_a_board_measured_offline_arrives_after_power_cut_and_reconnect(
    own_fleet: FleetManager, tmp_path: Path
) -> None:
    judge = Judge(own_fleet)
    receiver = Receiver(judge, own_fleet, tmp_path, "receiver-2")
    rig = MeasuringRig(own_fleet, judge, tmp_path, "board", heap="160k")

    def console() -> str:
        return rig.board.console[-1500:]

    rig.board.power_on()
    try:
        rig.wait_running("1.0.0")
        wait_for(lambda: receiver.values("board", "boot-1") or None, console, 20)
        own_fleet.kill()  # the link is gone for a while
        receiver.peer.closed.wait(10)
        offline = rig.durable("boot-1")
        wait_for(lambda: rig.durable("boot-1") > offline + 60 or None, console, 30)
        rig.board.kill()
        wait_for(lambda: rig.durable("boot-2") > 40 or None, console, 30)
        durable = rig.durable("boot-1")
        receiver.peer.client.loop_stop()
        receiver.peer.closed.clear()
        own_fleet.start()
        receiver.connect()
        wait_for(lambda: len(receiver.values("board", "boot-2")) > 60 or None, console, 60)
        first, second = receiver.values("board", "boot-1"), receiver.values("board", "boot-2")
        assert first == list(range(len(first))) and len(first) >= durable > offline + 60, console()
        assert second == list(range(len(second)))
        names = [row[1] for row in receiver.rows["board"] if row[1].startswith("boot")]
        assert names == sorted(names), "the first boot's records come first"
        assert max(receiver.values("board", "sum")) >= 10, "a second of samples in one record"
    finally:
        rig.board.power_off()
        receiver.peer.close()

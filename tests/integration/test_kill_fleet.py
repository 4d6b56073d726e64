# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the fleet manager at any moment, then a restart: nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

from examples.demo import factory
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from tests.integration.peer import Peer, register_device
from tests.integration.rig import Rig
from tests.support import ROOT

SEED = 20261123


class Workload:
    """Writes through the API and over MQTT as fast as it can; remembers only what was acknowledged."""

    def __init__(self, fleet: FleetManager, judge: Judge, peer: Peer, generation: int) -> None:
        self.things: list[str] = []
        self.jobs: list[str] = []
        self.counter = 0
        self._fleet, self._judge, self._peer, self._generation = fleet, judge, peer, generation
        self._threads = [threading.Thread(target=self._api), threading.Thread(target=self._mqtt)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _api(self) -> None:
        n = 0
        arn = self._judge.iot.describe_thing(thingName="writer")["thingArn"]
        try:
            while True:
                name = f"t-{self._generation}-{n}"
                self._judge.iot.create_thing(thingName=name, attributePayload={"attributes": {"n": str(n)}})
                self.things.append(name)
                self._judge.iot.create_job(
                    jobId=f"j-{self._generation}-{n}", targets=[arn], document=json.dumps({"n": n})
                )
                self.jobs.append(f"j-{self._generation}-{n}")
                n += 1
        except Exception:  # the kill: whatever the client makes of a dead server
            return

    def _mqtt(self) -> None:
        value = self._generation * 1_000_000
        while True:
            value += 1
            if not self._peer.acknowledged(
                "$aws/things/writer/shadow/update", {"state": {"reported": {"counter": value}}}, timeout=5
            ):
                return
            self.counter = value
            if self._peer.closed.is_set():
                return


def test_acknowledged_changes_survive_kill_9(own_fleet: FleetManager, tmp_path: Path) -> None:
    judge = Judge(own_fleet)
    judge.iot.meta.config.retries = {"max_attempts": 0}
    credentials = register_device(judge, tmp_path, "writer")
    chance = random.Random(SEED)
    for generation in range(1, 6):
        peer = Peer(own_fleet, "writer", credentials)
        assert peer.connect()
        workload = Workload(own_fleet, judge, peer, generation)
        workload.start()
        time.sleep(chance.uniform(0.2, 1.0))  # the moment of the kill is the subject of the test
        own_fleet.kill()
        workload.join()
        peer.client.loop_stop()
        own_fleet.start()
        assert workload.things, "nothing was written before the kill"
        present = set(judge.search(f"thingName:t-{generation}-*"))
        assert set(workload.things) <= present, sorted(set(workload.things) - present)
        for job in workload.jobs:
            assert json.loads(judge.iot.get_job_document(jobId=job)["document"]) == {"n": int(job.rsplit("-", 1)[1])}
            assert judge.executions(job) == {"writer": "QUEUED"}
        assert judge.reported("writer").get("counter", 0) >= workload.counter


def test_a_bulk_task_goes_on_where_it_was(own_fleet: FleetManager, tmp_path: Path) -> None:
    judge = Judge(own_fleet)
    for name in ("ESP32", "RASPBERRY_PI", "GREENGRASS_CORE"):
        judge.iot.create_thing_type(thingTypeName=name)
    for name in ("boards", "gateways", "demo-boards", "demo-gateways"):
        judge.iot.create_thing_group(thingGroupName=name)
    lines = factory.write(tmp_path / "factory.csv", 6000)
    template = ROOT / "examples" / "demo" / "templates" / "factory.json"
    command = threading.Thread(
        target=lambda: own_fleet.run(
            "things", "register", str(tmp_path / "factory.csv"), "--template", str(template), codes=(0, 1, 2)
        )
    )
    command.start()

    def running() -> str | None:
        tasks = judge.iot.list_thing_registration_tasks()["taskIds"]
        if tasks and judge.iot.describe_thing_registration_task(taskId=tasks[0])["percentageProgress"] > 0:
            return str(tasks[0])
        return None

    task = wait_for(running, lambda: "the bulk task did not start", 20)
    own_fleet.kill()
    own_fleet.start()
    command.join(60)

    def completed() -> dict[str, Any] | None:
        seen: dict[str, Any] = judge.iot.describe_thing_registration_task(taskId=task)
        return seen if seen["status"] == "Completed" else None

    seen = wait_for(completed, lambda: str(judge.iot.describe_thing_registration_task(taskId=task)), 60)
    assert seen["successCount"] == 6000
    assert seen["failureCount"] == lines - 6000
    assert len(judge.search("*")) == 6000


def test_an_update_in_flight_survives_kill_9_of_the_fleet_manager(own_fleet: FleetManager, tmp_path: Path) -> None:
    judge = Judge(own_fleet)
    rig = Rig(own_fleet, judge, tmp_path, "survivor")
    with rig.switched_on():
        chance = random.Random(SEED)
        for number, version in enumerate(("2.0.0", "1.0.0", "2.0.0")):
            rig.create_job(f"u-{number}", rig.publish(version))
            time.sleep(chance.uniform(0.05, 1.5))  # the moment of the kill is the subject of the test
            own_fleet.kill()
            own_fleet.start()
            status, details = rig.outcome(f"u-{number}")
            assert status == "SUCCEEDED", (details, rig.state())
            rig.wait_running(version)

# SPDX-License-Identifier: Apache-2.0
"""How long from CreateJob until a device works on it: the operator's clock at the call, the device's first message.

The handler runs after the service has set IN_PROGRESS, so this is what an operator sees, and an upper bound of that.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from edgefleet.artifacts import build, sign
from examples.demo.judge import Judge
from examples.demo.processes import FleetManager, LinuxAgent
from hil.virtual_board import VirtualBoard
from tests.integration.peer import listen

JOBS = 60
APPLICATION = """
from edgeagent import Agent
agent = Agent.from_file(version="1.0.0")

@agent.job("ping")
async def ping(job):
    await agent.client.publish("edge/%s/started" % agent.thing_name, job.id, 0)

def main():
    agent.run()
"""


def measure(fleet: FleetManager, judge: Judge, folder: Path) -> dict[str, dict[str, float]]:
    """Runtime → {"p50", "p99"} in milliseconds over JOBS jobs, one after the other."""
    return {board: _one(fleet, judge, folder, board) for board in ("linux", "UNIX_VIRTUAL")}


def _one(fleet: FleetManager, judge: Judge, folder: Path, board: str) -> dict[str, float]:
    thing = f"latency-{board.lower().replace('_', '-')}"
    place = folder / thing
    (place / "app").mkdir(parents=True)
    (place / "app" / "app.py").write_text(APPLICATION)
    runtime = "cpython" if board == "linux" else "micropython"
    artifact = build.build(place / "app", name="app", version="1.0.0", boards=["*"], runtime=runtime)
    sign.generate_key(place / "key.pem")
    sign.sign(artifact, place / "key.pem")
    artifact.write(place / "artifact")
    command = ["device", "prepare", str(place / "files"), "--serial", thing, "--board", board]
    fleet.run(*command, "--application", str(place / "artifact"))
    listener = listen(fleet, judge, place, f"edge/{thing}/started", f"listener-{thing}")
    device: LinuxAgent | VirtualBoard
    if board == "linux":
        device = LinuxAgent(place / "files")
        device.start()
    else:
        device = VirtualBoard(place / "board", heap="128k")
        device.flash(place / "files")
        device.power_on()
    try:
        while judge.search(f"thingName:{thing} AND shadow.reported.firmware:1.0.0") == []:
            time.sleep(0.1)
        arn = judge.iot.describe_thing(thingName=thing)["thingArn"]
        spent = []
        for number in range(JOBS):
            job = f"{thing}-{number}"
            start = time.monotonic()
            judge.iot.create_job(jobId=job, targets=[arn], document=json.dumps({"operation": "ping"}))
            _, payload = listener.messages.get(timeout=30)
            spent.append((time.monotonic() - start) * 1000)
            assert payload.decode() == job
            judge.finished(job, [thing], 30)
    finally:
        listener.close()
        if isinstance(device, VirtualBoard):
            device.power_off()
        else:
            device.stop()
    cuts = statistics.quantiles(spent, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}

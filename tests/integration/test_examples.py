# SPDX-License-Identifier: Apache-2.0
"""The applications of examples/ do on a real site what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.artifacts import build, sign
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager, LinuxAgent
from hil.virtual_board import VirtualBoard
from tests.integration.peer import listen
from tests.support import ROOT

HOST = "linux"


class Device:
    """A device with the example as its first application, on a board with a chip or on this host."""

    def __init__(self, fleet: FleetManager, judge: Judge, folder: Path, example: str, board: str, chip: str) -> None:
        self.judge, self.thing, self.folder = judge, folder.name, folder
        host = board == HOST
        runtime = "cpython" if host else "micropython"
        artifact = build.build(
            ROOT / "examples" / example, name=example, version="1.0.0", boards=["*"], runtime=runtime
        )
        folder.mkdir()
        key = folder / "key.pem"
        sign.generate_key(key)
        sign.sign(artifact, key)
        artifact.write(folder / "artifact")
        arguments = ["--serial", self.thing, "--board", board, "--application", str(folder / "artifact")]
        arguments += ["--attribute", "type=PUMP"]
        fleet.run("device", "prepare", str(folder / "files"), *arguments)
        self.board = self.agent = None
        if host:
            self.agent = LinuxAgent(folder / "files")
            self.agent.start()
        else:
            self.board = VirtualBoard(folder / "board", heap="160k", chip=chip)
            self.board.adc(14089)  # 25 degrees at the thermometer of an RP2040
            self.board.flash(folder / "files")
            self.board.power_on()

    def stop(self) -> None:
        for part in (self.board, self.agent):
            if isinstance(part, VirtualBoard):
                part.power_off()
            elif part:
                part.stop()

    def console(self) -> str:
        return self.board.console if self.board else (self.folder / "files" / "console.log").read_text()

    def wait_reported(self, **values: Any) -> None:
        wait_for(
            lambda: (values.items() <= self.judge.reported(self.thing).items()) or None,
            lambda: f"{self.judge.reported(self.thing)}\n{self.console()[-2000:]}",
            60,
        )

    def job(self, name: str, document: dict[str, Any]) -> None:
        arn = self.judge.iot.describe_thing(thingName=self.thing)["thingArn"]
        self.judge.iot.create_job(jobId=name, targets=[arn], document=json.dumps(document))

    def outcome(self, name: str) -> tuple[str, dict[str, str]]:
        counts = self.judge.finished(name, [self.thing], 90)
        return next(iter(counts)), self.judge.details(name, self.thing)


@pytest.fixture
def device(fleet: FleetManager, judge: Judge, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    example, board, chip = request.param
    one = Device(fleet, judge, tmp_path / f"{example}-{chip or board}".replace("_", "-"), example, board, chip)
    yield one
    one.stop()


def on(example: str, *places: tuple[str, str]) -> Any:
    parameters = [(example, board, chip) for board, chip in places]
    return pytest.mark.parametrize("device", parameters, indirect=True, ids=[chip or board for board, chip in places])


@on("sensor_board", ("RPI_PICO_W", "rp2"))
def test_the_sensor_board_sends_what_changed_and_obeys_its_shadow(
    device: Device, fleet: FleetManager, judge: Judge, tmp_path: Path
) -> None:
    topic = f"dt/edgeagent/{device.thing}/telemetry"
    listener = listen(fleet, judge, tmp_path, topic)
    device.wait_reported(firmware="1.0.0", port="rp2", chip="RP2040", type="PUMP")
    wanted = {"state": {"desired": {"sampleSeconds": 0}}}
    judge.data.update_thing_shadow(thingName=device.thing, payload=json.dumps(wanted))
    device.wait_reported(sampleSeconds=1)  # the device keeps it within reason
    assert device.board is not None
    values: list[float] = []

    def heard(value: float) -> bool | None:
        while not listener.messages.empty():
            message = json.loads(listener.messages.get()[1])
            assert message["thing"] == device.thing
            values.extend(record[2] for record in message["records"])
        return (value in values) or None

    wait_for(lambda: heard(25.0), lambda: f"{values} {device.console()[-800:]}", 40)
    device.board.adc(13406)  # 45 degrees
    wait_for(lambda: heard(45.0), lambda: f"{values} {device.console()[-800:]}", 40)
    assert sorted(set(values)) == [25.0, 45.0]
    listener.close()


@on("pi_service", (HOST, ""))
def test_the_pi_service_is_found_by_its_disk_and_bundles_its_mounts(
    device: Device, fleet: FleetManager, judge: Judge
) -> None:
    device.wait_reported(firmware="1.0.0", port="linux")
    wait_for(
        lambda: judge.search(f"thingName:{device.thing} AND shadow.reported.diskFree > 0") or None, device.console, 20
    )
    device.job("bundle", {"operation": "diagnostics"})
    assert device.outcome("bundle")[0] == "SUCCEEDED"
    listing = judge.s3.list_objects_v2(Bucket="edgeagent-uploads")
    keys = [entry["Key"] for entry in listing.get("Contents", []) if "bundle" in entry["Key"]]
    assert len(keys) == 1
    bundle = judge.s3.get_object(Bucket="edgeagent-uploads", Key=keys[0])["Body"].read().decode()
    assert any("mounts" in json.loads(line) and " / " in str(json.loads(line)) for line in bundle.splitlines())


@on("custom_job", ("ESP32_GENERIC", "esp32"), (HOST, ""))
def test_the_custom_job_goes_on_after_a_reset_where_it_was(device: Device, judge: Judge) -> None:
    device.wait_reported(firmware="1.0.0")
    device.job(f"cal-{device.thing}", {"operation": "calibrate", "positions": 20, "condition": "type == 'PUMP'"})
    wait_for(lambda: judge.details(f"cal-{device.thing}", device.thing) or None, device.console, 40)
    if device.board:
        device.board.kill()
    else:
        kill_child(device)
    status, details = device.outcome(f"cal-{device.thing}")
    assert status == "SUCCEEDED"
    assert float(details["offset"]) == 12
    assert details["resumed"] == "true"


def kill_child(device: Device) -> None:
    """SIGKILL the agent under its supervisor."""
    import os
    import signal

    assert device.agent is not None
    children = Path(f"/proc/{device.agent.pid}/task/{device.agent.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


def test_bad_calibration_documents_are_rejected_by_name(fleet: FleetManager, judge: Judge, tmp_path: Path) -> None:
    device = Device(fleet, judge, tmp_path / "custom-bad", "custom_job", HOST, "")
    try:
        device.wait_reported(firmware="1.0.0")
        device.job("bad", {"operation": "calibrate", "positions": 1})
        status, details = device.outcome("bad")
        assert status == "REJECTED"
        assert details["reason"] == "positions: must be a whole number from 2 to 100"
        device.job("not-here", {"operation": "calibrate", "condition": "type == 'FAN'"})
        assert device.outcome("not-here")[0] == "SUCCEEDED"
        assert "skipped" in judge.details("not-here", device.thing)
    finally:
        device.stop()

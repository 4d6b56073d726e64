# SPDX-License-Identifier: Apache-2.0
"""One virtual board on a real site, with signed releases to move it between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgefleet import devices
from edgefleet.artifacts import build, sign
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager
from hil.virtual_board import VirtualBoard
from tests.support import ROOT

APPS = ROOT / "examples" / "demo" / "apps"
VERSIONS = {"1.0.0": "v1", "2.0.0": "v2", "3.0.0": "bad"}


class Rig:
    """A board called `thing` that has been onboarded and runs 1.0.0."""

    settings: Mapping[str, Any] = {}  # further members of agent.json
    kind = "UNIX_VIRTUAL"  # MicroPython's name of the board
    chip = "unix"
    firmware: bytes | None = None  # see VirtualBoard.flash

    def __init__(self, fleet: FleetManager, judge: Judge, folder: Path, thing: str, heap: str = "128k") -> None:
        self.fleet, self.judge, self.folder, self.thing = fleet, judge, folder, thing
        self.key = folder / "key.pem"
        sign.generate_key(self.key)
        for version, app in VERSIONS.items():
            self._release(APPS / app, version)
        self.board = VirtualBoard(folder / "board", heap=heap, chip=self.chip)
        self.board.flash(self._files(heap), self.firmware)

    def _files(self, heap: str) -> Path:
        ready = self.fleet.ready
        files = self.folder / "files"
        config = devices.configuration(
            endpoint=ready["endpoint"],
            port=ready["mqtt_port"],
            template=ready["template"],
            parameters={"SerialNumber": self.thing},
            attributes={"heap": heap},
        )
        devices.prepare(
            files,
            {**config, **self.settings},
            on_board=True,
            board=self.kind,
            ca=Path(ready["ca"]),
            claim_certificate=Path(ready["claim_certificate"]),
            claim_key=Path(ready["claim_key"]),
            trust=sign.trust_document([self.key]),
            application=self.folder / "1.0.0",
        )
        return files

    def _release(self, source: Path, version: str) -> None:
        later = [other for other in VERSIONS if other > version]  # the tests move back and forth
        artifact = build.build(
            source,
            name="app",
            version=version,
            boards=[self.kind],
            expires=4_000_000_000,
            downgrade=later,
        )
        sign.sign(artifact, self.key)
        artifact.write(self.folder / version)

    def add_release(self, version: str, data: bytes) -> None:
        """The good application as `version`, with a data file."""
        source = self.folder / f"source-{version}"
        shutil.copytree(APPS / "v2", source)
        (source / "app.py").write_text((source / "app.py").read_text().replace("2.0.0", version))
        (source / "data.bin").write_bytes(data)
        self._release(source, version)

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """Runs 1.0.0 at the start, and is off at the end."""
        self.board.power_on()
        try:
            self.wait_running("1.0.0")
            yield
        finally:
            self.board.power_off()

    def wait_running(self, version: str, seconds: float = 40) -> None:
        """Connected, and reporting `version`."""
        query = f"thingName:{self.thing} AND shadow.reported.firmware:{version} AND connectivity.connected:true"
        wait_for(lambda: self.judge.search(query) or None, self.state, seconds)

    def publish(self, version: str, *options: str) -> dict[str, Any]:
        """Put a release on the site; returns the job document that rolls it out. options: of the command."""
        shown = self.fleet.run("artifact", "publish", str(self.folder / version), *options, "--json")
        document: dict[str, Any] = json.loads(shown)["document"]
        return document

    def create_job(self, job: str, document: dict[str, Any]) -> None:
        arn = self.judge.iot.describe_thing(thingName=self.thing)["thingArn"]
        self.judge.iot.create_job(jobId=job, targets=[arn], document=json.dumps(document))

    def percent(self, job: str) -> int:
        """How far the download is, 0 before it began."""
        return int(self.judge.details(job, self.thing).get("percent") or 0)

    def outcome(self, job: str, seconds: float = 90) -> tuple[str, dict[str, str]]:
        """Wait for the terminal status: (status, statusDetails)."""

        def probe() -> str | None:
            status = self.judge.executions(job).get(self.thing)
            return status if status not in (None, "QUEUED", "IN_PROGRESS") else None

        status = wait_for(probe, self.state, seconds)
        return status, self.judge.details(job, self.thing)

    def state(self) -> str:
        return f"{self.judge.reported(self.thing)} resets {self.board.resets}\n{self.board.console[-1500:]}"

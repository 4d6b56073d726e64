# SPDX-License-Identifier: Apache-2.0
"""The steps of the demo, in order. Each does one thing for real and then checks it with the judge."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgefleet import devices
from edgefleet.artifacts import build, sign
from examples.demo import factory
from examples.demo.factory import LIVE
from examples.demo.judge import Judge, expect, wait_for
from examples.demo.processes import FleetManager, LinuxAgent
from hil.virtual_board import HARD_RESET, VirtualBoard

HERE = Path(__file__).parent
TYPES = ("ESP32", "RASPBERRY_PI", "GREENGRASS_CORE")
GROUPS = (
    ("fleet", None),
    ("boards", "fleet"),
    ("gateways", "fleet"),
    ("demo-boards", "boards"),
    ("demo-gateways", "gateways"),
)
QUERY = "shadow.reported.engineStarts >= 20000"
RUNTIMES = {"demo-boards": "micropython", "demo-gateways": "cpython"}
BOARDS = tuple(live for live in LIVE if live.hardware == "UNIX_VIRTUAL")
PI = next(live for live in LIVE if live.hardware == "LINUX")


class Story:
    """One run of the demo in `folder`."""

    def __init__(self, folder: Path, console: Console, registrations: int, heap: str) -> None:
        self.folder = folder
        self.console = console
        self.registrations = registrations
        self.heap = heap
        self.fleet = FleetManager(folder / "fleet")
        self.boards = {
            live.serial: VirtualBoard(folder / live.serial, heap=heap, uid=f"02ed9e{number:06x}")
            for number, live in enumerate(BOARDS, 1)
        }
        self.pi = LinuxAgent(folder / PI.serial)
        self.jobs: dict[str, dict[str, int]] = {}
        self.outcomes: dict[str, dict[str, str]] = {live.serial: {} for live in LIVE}
        self.facts: dict[str, Any] = {}
        self._judge: Judge | None = None

    @property
    def judge(self) -> Judge:
        if self._judge is None:
            self._judge = Judge(self.fleet)
        return self._judge

    def close(self) -> None:
        """Leave no process behind."""
        for board in self.boards.values():
            board.power_off()
        self.pi.stop()
        self.fleet.stop()

    # the chapters

    def start_fleet(self) -> None:
        """Start edgefleet: private CA, broker on mutual TLS, SQLite store, HTTP API"""
        self.fleet.start()
        ready = self.fleet.ready
        self.say(f"MQTT {ready['endpoint']}:{ready['mqtt_port']}, API {ready['api']}, data {self.fleet.data}")

    def register(self) -> None:
        """Bulk-register the factory file through a provisioning template"""
        iot = self.judge.iot
        for name in TYPES:
            iot.create_thing_type(thingTypeName=name)
        for name, parent in GROUPS:
            iot.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))
        source = self.folder / "factory.csv"
        lines = factory.write(source, self.registrations)
        started = time.monotonic()
        self.command(
            "things", "register", str(source), "--template", str(HERE / "templates" / "factory.json"), codes=(2,)
        )
        elapsed = time.monotonic() - started
        task = iot.describe_thing_registration_task(
            taskId=iot.list_thing_registration_tasks(status="Completed")["taskIds"][0]
        )
        registered = len(self.judge.search("*"))
        self.facts["devices_registered"] = registered
        self.facts["lines_rejected"] = lines - registered
        self.facts["registrations_per_second"] = round(registered / elapsed)
        expect(registered == self.registrations, f"{registered} things are registered, not {self.registrations}")
        expect(lines - registered == len(factory.BAD_LINES), f"{lines - registered} lines were rejected")
        expect(task["successCount"] == registered, f"the task says {task['successCount']} successes")

    def pack_releases(self) -> None:
        """Build and sign the application: 1.0.0, 2.0.0 and a bad 3.0.0, for MicroPython and CPython"""
        self.key = self.folder / "release-key.pem"
        sign.generate_key(self.key)
        for version, app in (("1.0.0", "v1"), ("2.0.0", "v2"), ("3.0.0", "bad")):
            for group, runtime in RUNTIMES.items():
                boards = ["UNIX_VIRTUAL"] if runtime == "micropython" else ["*"]
                artifact = build.build(
                    HERE / "apps" / app, name="demo-app", version=version, boards=boards, runtime=runtime
                )
                sign.sign(artifact, self.key)
                artifact.write(self.release(version, group))

    def boot_devices(self) -> None:
        """Boot three virtual boards and a CPython agent: each holds only a claim certificate"""
        ready = self.fleet.ready
        common = {
            "endpoint": ready["endpoint"],
            "port": ready["mqtt_port"],
            "ca": Path(ready["ca"]),
            "claim_certificate": Path(ready["claim_certificate"]),
            "claim_key": Path(ready["claim_key"]),
            "trust": sign.trust_document([self.key]),
        }
        for live in LIVE:
            on_board = live in BOARDS
            files = self.folder / "files" / live.serial if on_board else self.folder / live.serial
            config = devices.configuration(
                endpoint=common["endpoint"],
                port=common["port"],
                template=ready["template"],
                parameters={"SerialNumber": live.serial},
                csr=not on_board,
                attributes={"type": live.type, "serial": live.serial},
            )
            devices.prepare(
                files,
                config,
                on_board=on_board,
                board="UNIX_VIRTUAL" if on_board else "",
                ca=common["ca"],
                claim_certificate=common["claim_certificate"],
                claim_key=common["claim_key"],
                trust=common["trust"],
                application=self.release("1.0.0", live.group),
            )
            (files / "state").mkdir(exist_ok=True)
            (files / "state" / "engine").write_text(str(live.engine_starts))
            if on_board:
                self.boards[live.serial].flash(files)
                self.boards[live.serial].power_on()
        self.pi.start()

    def provision(self) -> None:
        """Each provisions itself over MQTT, reconnects with its own certificate, reports its attributes"""

        def arrived() -> list[str] | None:
            names = [live.serial for live in LIVE if self.judge.reported(live.serial).get("firmware") == "1.0.0"]
            return names if len(names) == len(LIVE) else None

        names = wait_for(arrived, self.consoles, 60)
        for name in names:
            expect(len(self.judge.certificates(name)) == 1, f"{name} has no certificate of its own")
        self.facts["boards"] = len(self.boards)
        self.facts["provisioned"] = len(names)

    def query(self) -> None:
        """Ask the fleet"""
        table = Table("query", "matches", box=None, padding=(0, 2))
        for text in (
            "thingTypeName:ESP32 AND attributes.site:osaka",
            "thingGroupNames:boards AND NOT attributes.hardware:ESP32_GENERIC*",
            "shadow.reported.firmware:1.* AND connectivity.connected:true",
            QUERY,
        ):
            found = self.judge.search(text)
            table.add_row(text, f"{len(found)}  {', '.join(found[:3])}{' …' if len(found) > 3 else ''}")
        self.console.print(table)
        connected = self.judge.search("shadow.reported.firmware:1.* AND connectivity.connected:true")
        expect(connected == sorted(live.serial for live in LIVE), f"connected on 1.*: {connected}")
        self.matches = self.judge.search(QUERY)
        wanted = sorted(live.serial for live in LIVE if live.engine_starts + 1 >= 20000)
        expect(self.matches == wanted, f"{QUERY} found {self.matches}, not {wanted}")
        self.facts["query_matches"] = len(self.matches)

    def diagnose(self) -> None:
        """Job: collect diagnostics from the devices that match the query"""
        targets = [f"thing/{name}" for name in self.matches]
        self.job("diagnostics", {"operation": "diagnostics"}, targets, self.matches)
        bundles = self.judge.s3.list_objects_v2(Bucket="edgeagent-uploads").get("Contents", [])
        expect(len(bundles) == len(self.matches), f"{len(bundles)} bundles arrived for {len(self.matches)} devices")
        for entry in bundles:
            body = self.judge.s3.get_object(Bucket="edgeagent-uploads", Key=entry["Key"])["Body"].read()
            records = [json.loads(line) for line in body.decode().splitlines()]
            said = {record["section"]: record.get(record["section"]) for record in records}
            self.say(f"{entry['Key']}, {len(body)} bytes, {len(records)} records, among them")
            for section in ("facts", "memory", "boot", "log"):
                expect(section in said, f"{entry['Key']} has no section {section}: {list(said)}")
                self.say(f"    {section}: {json.dumps(said[section])[:120]}")

    def reboot(self) -> None:
        """Job: a reboot that really restarts the device, reported by the next boot"""
        resets = {name: board.resets.count(HARD_RESET) for name, board in self.boards.items()}
        before = {live.serial: self.starts(live.serial) for live in LIVE}
        self.job("reboot", {"operation": "reboot"}, [f"group/{group}" for group in RUNTIMES], [x.serial for x in LIVE])
        for name, board in self.boards.items():
            expect(board.resets.count(HARD_RESET) == resets[name] + 1, f"{name} did not reset: {board.resets}")
        for name, starts in before.items():
            self.counted(name, starts + 1)

    def update(self) -> None:
        """Job: signed application update 1.0.0 → 2.0.0 for a thing group, in blocks over MQTT, trial, confirm"""
        started = time.monotonic()
        self.release_jobs("2.0.0", "update", seconds=90)
        self.facts["update_seconds"] = round(time.monotonic() - started, 1)
        for live in LIVE:
            self.running(live.serial, "2.0.0")

    def bad_update(self) -> None:
        """Job: a bad release crashes on import, rolls back by itself and says why; the devices stay on 2.0.0"""
        self.release_jobs("3.0.0", "bad-update", seconds=120)
        rolled_back = 0
        for live in LIVE:
            job = f"bad-update-{live.group}"
            details = self.judge.details(job, live.serial)
            expect(self.judge.executions(job)[live.serial] == "FAILED", f"{live.serial} took the bad update")
            expect("fuel_injection" in details.get("reason", ""), f"{live.serial} does not say why: {details}")
            self.running(live.serial, "2.0.0")
            rolled_back += 1
        expect(self.pi.running, "the CPython agent is gone")
        self.facts["rolled_back"] = rolled_back

    CHAPTERS = (
        start_fleet, register, pack_releases, boot_devices, provision, query, diagnose, reboot, update, bad_update,
    )  # fmt: skip

    # what the chapters share

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False)

    def command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
        self.console.print(f"  [dim]$ edgefleet {' '.join(arguments)}[/]", highlight=False)
        self.fleet.run(*arguments, show=True, codes=codes)

    def release(self, version: str, group: str) -> Path:
        return self.folder / "releases" / f"{version}-{RUNTIMES[group]}"

    def job(
        self, job: str, document: dict[str, Any], targets: list[str], things: list[str], seconds: float = 60
    ) -> None:
        """Create the job with the operator's command, watch it live, and count its outcomes."""
        path = self.folder / f"{job}.json"
        path.write_text(json.dumps(document))
        flags = [part for target in targets for part in ("--target", target)]
        self.command("job", "create", job, "--document", str(path), *flags)
        self.command("job", "watch", job, "--timeout", str(int(seconds)), codes=(0, 1))
        self.jobs[job] = self.judge.finished(job, things, seconds)
        for thing, status in self.judge.executions(job).items():
            self.outcomes[thing][job.removesuffix("-demo-boards").removesuffix("-demo-gateways")] = status

    def release_jobs(self, version: str, name: str, seconds: float) -> None:
        """Publish a release and roll it out to both live groups."""
        wanted = "SUCCEEDED" if name == "update" else "FAILED"
        for group in RUNTIMES:
            job = f"{name}-{group}"
            published = json.loads(self.fleet.run("artifact", "publish", str(self.release(version, group)), "--json"))
            things = [live.serial for live in LIVE if live.group == group]
            self.job(job, published["document"], [f"group/{group}"], things, seconds)
            expect(
                self.jobs[job] == {wanted: len(things)}, f"{job} ended {self.jobs[job]}: {self.reasons(job, things)}"
            )

    def reasons(self, job: str, things: list[str]) -> str:
        return "; ".join(f"{thing}: {self.judge.details(job, thing)}" for thing in things)

    def running(self, name: str, version: str) -> None:
        """The device says it runs `version` and is connected."""
        query = f"thingName:{name} AND shadow.reported.firmware:{version} AND connectivity.connected:true"
        wait_for(
            lambda: self.judge.search(query) or None,
            lambda: f"{name} is not connected on {version}: {self.judge.reported(name)}",
            20,
        )

    def starts(self, name: str) -> int:
        return int(self.judge.reported(name)["engineStarts"])

    def counted(self, name: str, starts: int) -> None:
        """The device reports that it has been started once more."""
        wait_for(
            lambda: self.starts(name) == starts or None,
            lambda: f"{name} counts {self.starts(name)} starts, not {starts}",
            20,
        )

    def consoles(self) -> str:
        tails = [f"{name}: {board.console[-400:]}" for name, board in self.boards.items()]
        tails.append(f"{PI.serial}: {(self.pi.folder / 'console.log').read_text()[-400:]}")
        return "not all devices reported\n" + "\n".join(tails)

    def summary(self) -> Table:
        """Devices × versions × job outcomes, from the store."""
        jobs = list(dict.fromkeys(job for outcomes in self.outcomes.values() for job in outcomes))
        table = Table("device", "runs on", "firmware", "starts", "online", *jobs)
        online = set(self.judge.search("connectivity.connected:true"))
        for live in LIVE:
            reported = self.judge.reported(live.serial)
            table.add_row(
                live.serial,
                str(reported.get("runtime", "")),
                str(reported.get("firmware", "")),
                str(reported.get("engineStarts", "")),
                "yes" if live.serial in online else "no",
                *(self.outcomes[live.serial].get(job, "–") for job in jobs),
            )
        return table


def fresh(folder: Path) -> Path:
    """An empty folder for a run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

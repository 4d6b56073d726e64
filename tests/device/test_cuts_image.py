# SPDX-License-Identifier: Apache-2.0
"""Crashes of a machine that installs an image; the model of RAUC in hil/cuts/linux_rauc.py against the real one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.errors import UpdateError
from edgeagent.ports.linux import rauc
from hil.cuts import linux_rauc, mutants, plan
from hil.cuts.run import Tally, play
from hil.virtual_board import die_with_parent
from tests.device.rauc_machine import BUS, SYSTEM, signer

SIZE = 3 * 4096
LOADER = """#!/bin/sh
cd {folder}/loader
others() { for name in $(cat order); do [ $name = $1 ] || echo $name; done; }
echo "$@" >> log
case "$1" in
get-primary) for name in $(cat order); do [ $(cat left.$name) -gt 0 ] && echo $name && exit; done; exit 1 ;;
set-primary) echo $2 $(others $2) > order; echo 3 > left.$2 ;;
get-state) grep -q $2 order && [ $(cat left.$2) -gt 0 ] && echo good || echo bad ;;
set-state) [ $3 = good ] && echo 3 > left.$2 || { echo $(others $2) > order; echo 0 > left.$2; } ;;
esac
[ "$*" != "$(cat cut)" ] || kill -9 $PPID
"""


class Real:
    """The real RAUC, with a boot loader that counts as that of the model does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "loader").mkdir(parents=True)
        (folder / "mnt").mkdir()
        for name, text in (
            ("loader.sh", LOADER),
            ("system.conf", SYSTEM),
            ("bus.conf", BUS),
            ("hold.sh", "#!/bin/sh\n"),
        ):
            (folder / name).write_text(text.replace("{folder}", str(folder)).replace("{more}", ""))
            (folder / name).chmod(0o755)
        (folder / "rauc").write_text(f'#!/bin/sh\nexec {shutil.which("rauc")} -c {folder}/system.conf "$@"\n')
        (folder / "rauc").chmod(0o755)
        for name, text in (("order", "A\n"), ("left.A", "3\n"), ("left.B", "0\n"), ("log", ""), ("cut", "never")):
            (folder / "loader" / name).write_text(text)
        for slot in "AB":
            (folder / f"slot.{slot}").write_bytes(bytes(4 << 20))
        signer(folder, "release")
        signer(folder, "other")
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={folder}/bus"
        self._bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"], preexec_fn=die_with_parent
        )
        self._service: subprocess.Popen[bytes] | None = None
        self.rauc = rauc.Rauc(f"{folder}/rauc", [])
        self.boot("A")

    def boot(self, slot: str) -> None:
        """As after a restart of the machine."""
        self.stop()
        self._service = subprocess.Popen(
            [self.folder / "rauc", f"--override-boot-slot={slot}", "service"], preexec_fn=die_with_parent
        )
        until = time.monotonic() + 20
        while self.asked("status", "--output-format=json").get("compatible") != "Gateway":
            assert time.monotonic() < until, "RAUC's service does not begin"

    def asked(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run([self.folder / "rauc", *arguments], capture_output=True, check=False)
        found: dict[str, Any] = {} if done.returncode else json.loads(done.stdout)
        return found

    def stop(self) -> None:
        if self._service:
            self._service.kill()
            self._service.wait()
        subprocess.run(["umount", "-q", self.folder / "mnt/bundle"], capture_output=True, check=False)

    def close(self) -> None:
        self.stop()
        self._bus.kill()
        self._bus.wait()

    def env(self) -> dict[str, Any]:
        read = {name: (self.folder / "loader" / name).read_text().strip() for name in ("order", "left.A", "left.B")}
        return {"order": read["order"].replace(" ", ""), "left": {slot: int(read[f"left.{slot}"]) for slot in "AB"}}

    def cut(self, call: str) -> None:
        """The service ends where it has asked the boot loader for this."""
        (self.folder / "loader" / "cut").write_text(call)

    def bundle(self, version: str, by: str = "release", compatible: str = "Gateway") -> str:
        content = self.folder / f"content-{version}-{by}"
        content.mkdir()
        (content / "rootfs.img").write_bytes(linux_rauc.content(version, SIZE))
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=plain\n"
            "[image.rootfs]\nfilename=rootfs.img\n"
        )
        path = self.folder / f"{version}-{by}.raucb"
        key = [f"--cert={self.folder}/{by}.pem", f"--key={self.folder}/{by}.key"]
        subprocess.run(["rauc", *key, "bundle", content, path], check=True, capture_output=True)
        return str(path)


class Model(rauc.Rauc):
    """What reads the answers of the real one reads those of the model."""

    def __init__(self, folder: Path) -> None:
        super().__init__("", [])
        self.folder = folder
        self.place = ""
        self.model = linux_rauc.Rauc(str(folder / "model"), "A")
        self.model.make(linux_rauc.content("1.0.0", SIZE), SIZE)
        self.rauc = self

    def boot(self, slot: str) -> None:
        self.model.booted = slot

    def env(self) -> dict[str, Any]:
        env = self.model.env()
        return {"order": env["order"], "left": env["left"]}

    def cut(self, call: str) -> None:
        self.place = call

    def bundle(self, version: str, by: str = "release", compatible: str = "Gateway") -> str:
        path = self.folder / f"{version}-{by}.model"
        image = linux_rauc.content(version, SIZE)
        key = linux_rauc.KEY if by == "release" else b"other"
        path.write_bytes(linux_rauc.bundle(version, image, compatible, key))
        return str(path)

    def _call(self, seconds: float, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.CompletedProcess([], 0, self.model.answer(list(arguments)), "")
        except ValueError as error:
            return subprocess.CompletedProcess([], 1, "", str(error))

    async def install(self, path: str, tick: Any) -> None:
        last = {"set-state B bad": 40, "set-primary B": 100}.get(self.place)
        try:
            for percent in self.model.install(Path(path).read_bytes()):  # noqa: ASYNC240
                if percent == last:
                    raise UpdateError("install", "cut")
                await tick(percent)
        except ValueError as error:
            raise UpdateError("install", str(error)) from None


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
    monkeypatch.setattr(rauc, "_POLL_S", 0.05)
    real = Real(tmp_path / "real")
    try:
        yield [real, Model(tmp_path)]
    finally:
        real.close()


def damaged(path: Path) -> list[str]:
    """Paths of copies of a bundle that are not as they were signed."""
    data = path.read_bytes()
    made = []
    for name, other in (("bits", data[:5000] + bytes(100) + data[5100:]), ("end", data[:-4096])):
        made.append(str(path.with_name(f"{name}.raucb")))
        Path(made[-1]).write_bytes(other)
    return made


async def told(one: Any, bundles: list[rauc.Bundle]) -> list[Any]:
    """All that the agent reads of RAUC's status; the boot loader's variables."""
    system = await one.rauc.idle(20)
    found = [system.compatible, system.booted, system.primary, one.env()]
    for slot in sorted(system.slots):
        count = system.slots[slot].get("slot_status", {}).get("installed", {}).get("count")
        found += [slot, system.version(slot), system.state(slot), [system.holds(slot, one) for one in bundles], count]
    return found


@pytest.mark.skipif(not shutil.which("rauc"), reason="rauc is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="RAUC's service mounts bundles, which only root may")
def test_the_model_answers_as_rauc_does(both: list[Any]) -> None:
    async def story(one: Any) -> list[Any]:
        found: list[Any] = []
        bundles: list[rauc.Bundle] = []

        async def look(what: str) -> None:
            found.append([what, *await told(one, bundles)])

        async def tick(percent: int) -> None:
            percents.append(percent)

        percents: list[int] = []
        first, second = one.bundle("2.0.0"), one.bundle("3.0.0")
        await look("factory")
        for path in (first, second, one.bundle("2.0.0", by="other"), one.bundle("4.0.0", compatible="Fridge")):
            try:
                bundles.append(await one.rauc.info(path))
                found.append([bundles[-1].compatible, bundles[-1].version, sorted(bundles[-1].images)])
            except UpdateError as error:
                found.append(error.code)
        for path in damaged(Path(first)):
            try:
                await one.rauc.info(path)
                found.append("genuine")
            except UpdateError as error:
                found.append(error.code in ("signature", "bundle"))
        # Cuts after the slot was marked bad, and after all was written and the slot made the primary one; none.
        for call in ("set-state B bad", "set-primary B", ""):
            one.cut(call)
            try:
                await one.rauc.install(first, tick)
                found.append(["installed", percents[-1]])
            except UpdateError as error:
                found.append(error.code)
                one.boot("A")
            await look(call)
        await asyncio.to_thread(one.rauc.mark, "good", "booted")
        await look("good")
        one.boot("B")
        await look("in the new one")
        await asyncio.to_thread(one.rauc.mark, "good", "booted")
        await one.rauc.install(second, tick)
        await look("the second")
        for state, slot in (("bad", "rootfs.0"), ("active", "other"), ("active", "booted"), ("bad", "other")):
            await asyncio.to_thread(one.rauc.mark, state, slot)
            await look(f"{state} {slot}")
        return found

    real, model = [asyncio.run(asyncio.wait_for(story(one), 60)) for one in both]
    for there, here in zip(real, model, strict=True):
        assert here == there


def bad(tally: Tally) -> str:
    return "".join(f"\n{problem}\n    python -m hil.cuts --replay '{case}'" for case, problem in tally.bad[:5])


@pytest.mark.parametrize("scenario", ["image", "image-dead"])
def test_a_crash_leaves_a_machine_that_boots_and_a_true_status(scenario: str) -> None:
    tally = play(plan.Task(scenario, "linux").members())
    assert not tally.bad_count, bad(tally)
    assert tally.states > 100


def test_a_second_crash_is_no_worse() -> None:
    tally = play(plan.Task("image-twice", "linux", 3, 61).members())
    assert not tally.bad_count, bad(tally)
    assert tally.states > 100


@pytest.mark.parametrize("scenario", ["image-back", "image-back-stuck"])
def test_a_crash_in_going_back_leaves_what_can_be_gone_back_to_and_updated(scenario: str) -> None:
    tally = play(plan.Task(scenario, "linux", 3, 5).members())
    assert not tally.bad_count, bad(tally)
    assert tally.states > 20


@pytest.mark.parametrize(
    "name", ["image-request-not-synced", "image-installed-before-it-is", "image-back-marked-bad-unseen"]
)
def test_a_fault_is_found(name: str) -> None:
    assert mutants.hunt_one(name)[1].startswith("linux-image")


def test_a_bad_second_crash_is_replayed_by_its_id() -> None:
    with mutants.changed("image-kernel-ignored") as folder:
        (found,) = play(plan.Task("image-twice", "linux", 1, 8, limit=1).members(), over=folder).bad
        assert found[0].count("/") == 2
        assert play({"replay": found[0]}, over=folder).bad == [found]

# SPDX-License-Identifier: Apache-2.0
"""Linux images: the job operation rollback, on the machine of rauc_machine.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.device.ground import ground
from tests.device.rauc_machine import THING, Machine, machine
from tests.device.test_rauc import at_places, on, pytestmark, slots

assert pytestmark  # the same conditions
BACK = {"operation": "rollback", "kind": "image"}


async def updated(it: Machine, *versions: str) -> None:
    for version in versions:
        status, details = await it.outcome(f"to-{version[0]}", it.bundle(version))
        assert status == "SUCCEEDED", (details, it.log())


async def asked_to_go_back(it: Machine) -> str:
    """Job j comes to its restart, which is not done; what the program "reboot" was, which does it."""
    program = it.folder / "reboot"
    restarts = program.read_text()
    program.write_text(f"#!/bin/sh\ntouch {it.folder}/asked\n")
    it.site.job("j", THING, BACK)
    await it.until(lambda: (it.folder / "asked").exists(), "the restart")
    return restarts


def test_an_operator_goes_back_to_the_system_before_and_forth_again(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0", "3.0.0")
        before = slots(it)
        outcome = await it.outcome("back", {**BACK, "version": "2.0.0"})
        assert outcome == ("SUCCEEDED", {"version": "2.0.0", "previous": "3.0.0"}), it.log()
        assert (it.loader("left.B"), it.loader("order")) == ("99", "B A")
        outcome = await it.outcome("forth", BACK)
        assert outcome == ("SUCCEEDED", {"version": "3.0.0", "previous": "2.0.0"}), it.log()
        assert it.boots == ["1.0.0", "2.0.0", "3.0.0", "2.0.0", "3.0.0"]
        assert slots(it) == before
        await updated(it, "4.0.0")

    on(tmp_path, scenario)


def test_the_system_of_the_factory_is_gone_back_to_without_knowing_its_version(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        outcome = await it.outcome("back", BACK)
        assert outcome == ("SUCCEEDED", {"version": "unknown", "previous": "2.0.0"}), it.log()
        assert it.running() == "1.0.0"
        outcome = await it.outcome("forth", {**BACK, "version": "2.0.0"})
        assert outcome == ("SUCCEEDED", {"version": "2.0.0", "previous": "unknown"}), it.log()

    on(tmp_path, scenario)


def test_a_system_that_nothing_was_left_of_is_not_gone_back_to(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        reason = "slot: nothing is kept"
        assert await it.outcome("none", BACK) == ("FAILED", {"reason": reason}), it.log()
        await updated(it, "2.0.0")
        other = await it.outcome("other", {**BACK, "version": "0.9.0"})
        assert other == ("REJECTED", {"reason": "version: unknown is kept"}), it.log()
        # By hand, and not activated: it is not what ran here.
        await asyncio.to_thread(it.install, it.path(it.bundle("5.0.0")))
        assert it.holds("A") == "5.0.0"
        assert await it.outcome("written", BACK) == ("FAILED", {"reason": reason}), it.log()
        assert it.boots == ["1.0.0", "2.0.0"]

    on(tmp_path, scenario, more="activate-installed=false")


def test_an_update_that_ends_before_rauc_writes_leaves_what_is_kept(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        (it.folder / "hold.sh").write_text("#!/bin/sh\nexit 1\n")
        status, details = await it.outcome("j", it.bundle("3.0.0"))
        assert (status, details["reason"][:7]) == ("FAILED", "install"), it.log()
        assert (await it.outcome("k", BACK))[0] == "SUCCEEDED", it.log()
        assert it.boots == ["1.0.0", "2.0.0", "1.0.0"]

    on(tmp_path, scenario)


def test_an_installation_by_hand_that_was_cut_off_leaves_nothing_to_go_back_to(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        (it.folder / "loader/left.A").write_text("0")  # RAUC does that before it writes
        assert await it.outcome("j", BACK) == ("FAILED", {"reason": "slot: rootfs.0 is bad"}), it.log()
        assert it.boots == ["1.0.0", "2.0.0"]

    on(tmp_path, scenario)


def test_without_a_status_of_slots_it_is_not_known_what_is_kept(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        path = it.folder / "system.conf"  # nothing has read it yet
        path.write_text("\n".join(line for line in path.read_text().split("\n") if not line.startswith("statusfile")))
        await updated(it, "2.0.0")
        assert await it.outcome("j", BACK) == ("FAILED", {"reason": "slot: RAUC keeps no status of slots"}), it.log()

    on(tmp_path, scenario)


@pytest.mark.parametrize("fault", ["sick", "broken"])
def test_an_older_system_that_is_no_good_any_more_makes_room_for_the_one_that_was_left(
    tmp_path: Path, fault: str
) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0", "3.0.0")
        it.sick("2.0.0" if fault == "sick" else "")
        it.broken = {"2.0.0"} if fault == "broken" else set()
        status, details = await it.outcome("back", BACK)
        assert (status, details["reason"][:12], it.running()) == ("FAILED", "rolled-back:", "3.0.0"), it.log()
        assert it.loader("left.B") == "0"
        assert await it.outcome("again", BACK) == ("FAILED", {"reason": "rolled-back: 2.0.0"}), it.log()
        await updated(it, "4.0.0")

    on(tmp_path, scenario, environment={"CONFIRM": "3"})


def test_going_back_waits_for_the_application_before_anything_is_marked(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        (it.folder / "busy").write_text("restart")
        log = it.loader("log").count("set-")
        outcome = await it.outcome("never", {**BACK, "wait": 1})
        assert outcome == ("FAILED", {"reason": "gate: application: in use"}), it.log()
        assert it.loader("log").count("set-") == log
        it.site.job("j", THING, BACK)
        await it.until(lambda: it.site.execution("j", THING)[1].get("reason") == "application: in use", "the wait")
        it.cut()
        await it.until(lambda: len(it.boots) == 3, "the boot")
        assert it.running() == "2.0.0"
        (it.folder / "busy").write_text("")
        assert (await it.site.outcome("j", THING))[0] == "SUCCEEDED", it.log()
        assert it.running() == "1.0.0"

    on(tmp_path, scenario)


def test_a_machine_that_does_not_restart_to_go_back_still_has_both_systems(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        restarts = (it.folder / "reboot").read_text()
        (it.folder / "reboot").write_text("#!/bin/sh\necho not now >&2; exit 1\n")
        status, details = await it.outcome("j", BACK)
        assert (status, details["reason"]) == ("FAILED", "rolled-back: the machine did not restart: not now"), it.log()
        assert it.loader("order") == "B A"
        assert it.loader("left.A") != "0"
        it.cut()
        await it.until(lambda: it.boots == ["1.0.0", "2.0.0", "2.0.0"], "the boot")
        (it.folder / "reboot").write_text(restarts)
        assert (await it.outcome("again", BACK))[0] == "SUCCEEDED", it.log()
        assert it.running() == "1.0.0"

    on(tmp_path, scenario)


def test_a_job_that_is_cancelled_before_its_restart_leaves_what_is_kept_to_the_next_one(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        restarts = await asked_to_go_back(it)
        assert it.loader("order") == "A B"
        it.site.cancel("j")
        await it.until(lambda: it.record().get("settled"), "the end of the job")
        assert (it.loader("order"), it.loader("left.A")) == ("B A", "3")
        (it.folder / "reboot").write_text(restarts)
        assert (await it.outcome("k", BACK))[0] == "SUCCEEDED", it.log()
        assert it.boots == ["1.0.0", "2.0.0", "1.0.0"]

    on(tmp_path, scenario)


def test_a_power_cut_while_a_cancelled_job_is_undone_does_not_cost_what_is_kept(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        await updated(it, "2.0.0")
        restarts = await asked_to_go_back(it)
        loader = (it.folder / "loader.sh").read_text()
        (it.folder / "loader.sh").write_text("#!/bin/sh\nexit 1\n")  # nothing is marked any more
        it.site.cancel("j")
        await it.until(lambda: it.record()["state"] == "rolled_back", "the end of the job")

        def again() -> None:
            (it.folder / "loader.sh").write_text(loader)
            (it.folder / "reboot").write_text(restarts)

        it.cut(again)
        await it.until(lambda: it.boots == ["1.0.0", "2.0.0", "1.0.0", "2.0.0"], "the way back")
        await it.until(lambda: it.record()["settled"], "its end")
        assert (await it.outcome("k", BACK))[0] == "SUCCEEDED", it.log()
        assert it.running() == "1.0.0"
        await updated(it, "3.0.0")

    on(tmp_path, scenario)


@pytest.mark.parametrize("sick", [False, True], ids=["well", "sick"])
@pytest.mark.parametrize("kill", ["agent", "power"])
def test_a_cut_at_any_place_of_going_back_ends_in_one_true_status(tmp_path: Path, kill: str, sick: bool) -> None:
    """As of an update, from the beginning of the second job on."""

    async def one(kill_at: int) -> tuple[int, int]:
        folder = tmp_path / str(kill_at)
        environment = {"KILL": kill, "KILL_AT": str(kill_at), "CONFIRM": "3" if sick else "60"}
        async with ground(folder / "site") as site, machine(site, folder / "m", environment=environment) as it:
            await updated(it, "2.0.0")
            first = (it.folder / "steps").stat().st_size
            it.sick("1.0.0" if sick else "")
            status, details = await it.outcome("back", BACK)
            want = ("FAILED", "2.0.0") if sick else ("SUCCEEDED", "1.0.0")
            assert (status, it.running()) == want, (kill_at, details, it.log())
            boots = len(it.boots)
            it.cut()
            await it.until(lambda: len(it.boots) > boots, "another boot")
            assert (it.site.execution("back", THING)[0], it.running()) == want, (kill_at, it.boots)
            return first, (it.folder / "steps").stat().st_size

    async def main() -> None:
        await at_places(one, *await one(0), 1)

    asyncio.run(main())

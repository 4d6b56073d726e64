# SPDX-License-Identifier: Apache-2.0
"""Linux images: real bundles, the real RAUC, the agent as a process, and a site's broker and jobs service."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagent.config import parse
from edgeagent.errors import ConfigError, JobRejected
from edgeagent.image import check
from edgeagent.jobs import image
from tests.device.ground import ground
from tests.device.rauc_machine import THING, Machine, machine

pytestmark = [
    pytest.mark.skipif(not shutil.which("rauc"), reason="rauc is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="RAUC's service mounts bundles, which only root may"),
]
Scenario = Callable[[Machine], Awaitable[None]]


def on(folder: Path, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with ground(folder / "site") as site, machine(site, folder / "machine", **options) as it:
            await scenario(it)

    asyncio.run(asyncio.wait_for(main(), 120))


async def at_places(one: Callable[[int], Awaitable[Any]], first: int, last: int, few: int) -> None:
    """Call `one` with each place after `first` up to `last`; with `few` of them unless PLACES=all."""
    seed = int(os.environ.get("SEED", time.time()))
    chosen = list(range(first + 1, last + 1))
    if os.environ.get("PLACES") != "all":
        chosen = random.Random(seed).sample(chosen, few)
    print(f"{len(chosen)} of {last - first} places, SEED={seed}")
    for at in chosen:
        await asyncio.wait_for(one(at), 60)


def test_a_good_bundle_is_installed_booted_proved_and_marked_good(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        document = it.bundle("2.0.0")
        path = it.path(document)
        document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        status, details = await it.outcome("j", document)
        assert status == "SUCCEEDED", (details, it.log())
        assert details == {"version": "2.0.0", "previous": "unknown"}
        assert it.boots == ["1.0.0", "2.0.0"]
        assert "set-state B good" in it.loader("log")
        assert not (it.folder / "thing/slots/image/bundle").exists()
        assert (await it.outcome("k", it.bundle("2.1.0")))[1] == {"version": "2.1.0", "previous": "2.0.0"}
        assert it.running() == "2.1.0"

    on(tmp_path, scenario)


def slots(it: Machine) -> bytes:
    return b"".join((it.folder / f"slot.{name}").read_bytes() for name in "AB")


@pytest.mark.parametrize(
    ("made", "changed", "code"),
    [
        ({"by": "other"}, {}, "signature"),
        ({"compatible": "Fridge"}, {}, "board: Fridge, here Gateway"),
        ({}, {"version": "2.0.1"}, "version: 2.0.0, in the job 2.0.1"),
        ({}, {"sha256": "0" * 64}, "file-hash"),
        ({}, {"size": 4096}, "bundle"),
        ({}, {"size": 1 << 39}, "space"),
        ({}, {"battery": 50, "wait": 0}, "gate: battery: unknown"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    tmp_path: Path, made: dict[str, str], changed: dict[str, Any], code: str
) -> None:
    async def scenario(it: Machine) -> None:
        before = slots(it)
        status, details = await it.outcome("j", {**it.bundle("2.0.0", **made), **changed})
        assert (status, details["reason"][: len(code)]) == ("FAILED", code), it.log()
        assert slots(it) == before
        assert it.loader("log").count("set-") == it.loader("log").count("set-state A good")
        assert it.boots == ["1.0.0"]
        assert it.record()["job"] is None

    on(tmp_path, scenario)


def test_a_bundle_that_is_gone_ends_the_job_at_once(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        document = it.bundle("2.0.0")
        it.path(document).unlink()
        status, details = await it.outcome("j", document)
        assert (status, details["reason"]) == ("FAILED", "transfer: HTTP 404 "), it.log()

    on(tmp_path, scenario)


def test_an_older_version_is_refused_whatever_the_document_says(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        assert (await it.outcome("j", it.bundle("2.0.0")))[0] == "SUCCEEDED", it.log()
        reasons = [
            (await it.outcome(f"k{n}", {**it.bundle(version), "downgrade": True}))[1]["reason"]
            for n, version in enumerate(("1.9.9", "2.0.0", "nightly"))
        ]
        assert reasons == ["downgrade: 1.9.9, here 2.0.0", "same-version: 2.0.0", "downgrade: nightly, here 2.0.0"]
        assert it.boots == ["1.0.0", "2.0.0"]

    on(tmp_path, scenario)


def test_a_bundle_below_the_configured_folder_is_installed_from_there(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        document = it.bundle("2.0.0")
        path = it.path(document)
        assert (await it.outcome("j", {**document, "url": str(path)}))[0] == "SUCCEEDED", it.log()
        assert path.exists()
        assert it.files.served == 0
        outside = {**document, "url": f"{it.folder}/bundles/../system.conf"}
        assert (await it.outcome("k", outside))[0] == "REJECTED"

    on(tmp_path, scenario)


def test_a_download_goes_on_after_lost_connections_and_kills(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        document = it.bundle("2.0.0", size=900_000)
        it.files.cut = 300_000
        it.site.job("j", THING, document)
        await it.until(lambda: it.fetched() >= 290_000, "the cut")
        it.kill_agent()
        first = len(it.files.asked)
        it.files.cut = 600_000
        await it.until(lambda: it.fetched() >= 590_000, "the second cut")
        it.kill_agent()
        second = len(it.files.asked)
        it.files.cut = None
        status, details = await it.site.outcome("j", THING)
        assert status == "SUCCEEDED", (details, it.log())
        assert min(it.files.asked[first:]) > 290_000 - 4096
        assert min(it.files.asked[second:]) > 590_000 - 4096

    on(tmp_path, scenario)


def test_a_power_cut_costs_what_one_request_brought(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        def damage() -> None:
            """What was written since the last fsync is not what was meant."""
            (path,) = it.unfinished()
            with path.open("r+b") as file:
                file.seek(-(1 << 20), os.SEEK_END)
                file.write(bytes(1 << 20))

        document = it.bundle("2.0.0", size=3_000_000)
        it.files.cut = 2_500_000
        it.site.job("j", THING, document)
        await it.until(lambda: it.fetched() >= 2_490_000, "the cut")
        it.cut(damage)
        await it.until(lambda: len(it.boots) == 2, "the boot")
        before = len(it.files.asked)
        it.files.cut = None
        status, details = await it.site.outcome("j", THING)
        assert status == "SUCCEEDED", (details, it.log())
        assert min(it.files.asked[before:]) > 2_490_000 - (1 << 20) - 4096

    on(tmp_path, scenario)


def test_an_installation_goes_on_while_the_agent_is_killed(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "hold").touch()
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: (it.folder / "installing").exists(), "the installation")
        (it.folder / "installing").unlink()
        first = it.agent
        it.kill_agent()
        await it.until(
            lambda: it.agent not in (first, None) and it.log().count("jobs j: image") == 2, "the second agent"
        )
        (it.folder / "hold").unlink()
        status, details = await it.site.outcome("j", THING)
        assert (status, it.boots) == ("SUCCEEDED", ["1.0.0", "2.0.0"]), (details, it.log())
        assert not (it.folder / "installing").exists(), "installed twice"

    on(tmp_path, scenario)


def test_a_power_cut_during_the_installation_is_repaired_by_another_one(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "hold").touch()
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: (it.folder / "installing").exists(), "the installation")
        it.cut()
        await it.until(lambda: len(it.boots) == 2, "the boot")
        (it.folder / "hold").unlink()
        assert (await it.site.outcome("j", THING))[0] == "SUCCEEDED", it.log()
        assert it.boots == ["1.0.0", "1.0.0", "2.0.0"]

    on(tmp_path, scenario)


def test_a_slot_that_does_not_boot_is_reported_and_stays_bad(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        it.broken.add("2.0.0")
        status, details = await it.outcome("j", it.bundle("2.0.0"))
        assert (status, details["reason"]) == (
            "FAILED",
            "rolled-back: the boot loader went back to rootfs.0; rootfs.0 is good, rootfs.1 is bad",
        ), it.log()
        it.broken.clear()
        it.cut()
        await it.until(lambda: len(it.boots) == 3, "the boot")
        assert it.running() == "1.0.0"
        assert (await it.outcome("k", it.bundle("2.0.1")))[0] == "SUCCEEDED", it.log()

    on(tmp_path, scenario)


@pytest.mark.parametrize("fault", ["sick", "deaf"])
def test_a_system_that_nobody_confirms_is_marked_bad_and_left(tmp_path: Path, fault: str) -> None:
    async def scenario(it: Machine) -> None:
        it.sick("2.0.0" if fault == "sick" else "")
        it.deaf = {"2.0.0"} if fault == "deaf" else set()
        status, details = await it.outcome("j", it.bundle("2.0.0"))
        link = "connected: application: the application of 2.0.0 is not well" if fault == "sick" else "no connection: "
        reason = f"rolled-back: not confirmed within 3 s, {link}"
        assert (status, details["reason"].strip()) == ("FAILED", reason.strip()), it.log()
        assert it.boots == ["1.0.0", "2.0.0", "1.0.0"]
        assert (it.loader("left.B"), it.loader("left.A")) == ("0", "99")

    on(tmp_path, scenario, environment={"CONFIRM": "3"})


def test_a_job_that_is_cancelled_during_the_installation_leaves_the_old_system(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "hold").touch()
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: (it.folder / "installing").exists(), "the installation")
        it.site.cancel("j")
        await it.until(lambda: it.record()["state"] == "rolled_back", "the end of the update")
        (it.folder / "hold").unlink()
        await it.until(lambda: it.record()["settled"], "the way back")
        assert it.loader("left.B") == "0"
        it.cut()
        await it.until(lambda: len(it.boots) == 2, "the boot")
        assert it.boots == ["1.0.0", "1.0.0"]
        assert it.site.execution("j", THING)[0] == "CANCELED"

    on(tmp_path, scenario)


def test_a_job_that_is_cancelled_while_the_agent_is_away_leaves_the_old_system(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "hold").touch()
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: (it.folder / "installing").exists(), "the installation")
        it.site.cancel("j")
        it.kill_agent()
        (it.folder / "hold").unlink()
        await it.until(lambda: it.record().get("settled"), "the way back")
        assert (it.loader("left.B"), it.loader("order")) == ("0", "A B")
        assert it.boots == ["1.0.0"]

    on(tmp_path, scenario)


def test_a_trial_ends_when_the_service_ends_its_job(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        it.sick("2.0.0")
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: it.site.execution("j", THING)[1].get("step") == "trial", "the trial")
        it.site.cancel("j")
        await it.until(lambda: it.boots == ["1.0.0", "2.0.0", "1.0.0"], "the way back")

    on(tmp_path, scenario)


def test_an_application_that_is_in_use_puts_the_restart_off(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "busy").write_text("restart")
        it.site.job("j", THING, it.bundle("2.0.0"))
        await it.until(lambda: it.site.execution("j", THING)[1].get("reason") == "application: in use", "the wait")
        assert it.holds("B") == "2.0.0"
        assert it.boots == ["1.0.0"]
        (it.folder / "busy").write_text("")
        assert (await it.site.outcome("j", THING))[0] == "SUCCEEDED", it.log()

    on(tmp_path, scenario)


def test_a_restart_that_may_not_be_done_in_time_is_given_up(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "busy").write_text("restart")
        status, details = await it.outcome("j", {**it.bundle("2.0.0"), "wait": 1})
        assert (status, details["reason"]) == ("FAILED", "gate: application: in use"), it.log()
        assert (it.loader("left.B"), it.loader("order")) == ("0", "A B")

    on(tmp_path, scenario)


def test_rauc_may_be_told_not_to_activate_what_it_installed(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        assert (await it.outcome("j", it.bundle("2.0.0")))[0] == "SUCCEEDED", it.log()
        assert it.running() == "2.0.0"

    on(tmp_path, scenario, more="activate-installed=false")


def test_a_machine_that_does_not_restart_keeps_the_old_system(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        (it.folder / "reboot").write_text("#!/bin/sh\necho not now >&2; exit 1\n")
        status, details = await it.outcome("j", it.bundle("2.0.0"))
        assert (status, details["reason"]) == ("FAILED", "rolled-back: the machine did not restart: not now"), it.log()
        assert it.loader("left.B") == "0"
        it.cut()
        await it.until(lambda: it.boots == ["1.0.0", "1.0.0"], "the boot")

    on(tmp_path, scenario)


@pytest.mark.parametrize("sick", [False, True], ids=["well", "sick"])
@pytest.mark.parametrize("kill", ["agent", "power"])
def test_a_cut_at_any_place_ends_in_one_true_status(tmp_path: Path, kill: str, sick: bool) -> None:
    """Once in a run the agent is killed, or the power fails, where something becomes durable or RAUC is asked.

    All places with PLACES=all in the environment.
    """

    async def one(kill_at: int) -> int:
        folder = tmp_path / str(kill_at)
        environment = {"KILL": kill, "KILL_AT": str(kill_at), "CONFIRM": "3" if sick else "60"}
        async with ground(folder / "site") as site, machine(site, folder / "m", environment=environment) as it:
            it.sick("2.0.0" if sick else "")
            status, details = await it.outcome("j", it.bundle("2.0.0"))
            want = ("FAILED", "1.0.0") if sick else ("SUCCEEDED", "2.0.0")
            assert (status, it.running()) == want, (kill_at, details, it.log())
            cuts = 1 if kill == "power" and kill_at else 0
            assert len(it.boots) <= (3 if sick else 2) + cuts, (kill_at, it.boots)
            boots = len(it.boots)
            it.cut()
            await it.until(lambda: len(it.boots) > boots, "another boot")
            assert (it.site.execution("j", THING)[0], it.running()) == want, (kill_at, it.boots)
            return (it.folder / "steps").stat().st_size

    async def main() -> None:
        await at_places(one, 0, await one(0), 2)

    asyncio.run(main())


def test_what_a_boot_has_cost_is_given_back_to_a_system_that_is_not_on_trial(tmp_path: Path) -> None:
    async def scenario(it: Machine) -> None:
        for slot, version in (("A", "1.0.0"), ("B", "2.0.0")):
            if slot == "B":
                assert (await it.outcome("j", it.bundle("2.0.0")))[0] == "SUCCEEDED", it.log()
            await it.until(lambda: it.running() == version, "the boot")  # noqa: B023
            boots = len(it.boots)
            it.cut(lambda: (it.folder / f"loader/left.{slot}").write_text("2"))  # noqa: B023
            await it.until(lambda: len(it.boots) > boots, "another boot")  # noqa: B023
            await it.until(lambda: it.loader(f"left.{slot}") == "99", "its mark")  # noqa: B023
            assert it.running() == version

    on(tmp_path, scenario)


# --- documents and configuration


GOOD = {"url": "https://a/b", "size": 1, "version": "2"}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("url", None),
        ("url", "http://a/b"),
        ("url", "file:///srv/a"),
        ("url", "/etc/passwd"),
        ("url", "/srv/../etc/passwd"),
        ("url", "/srv/a\0b"),
        ("size", 0),
        ("size", True),
        ("size", 1 << 41),
        ("version", ""),
        ("version", 2),
        ("sha256", "A" * 64),
        ("sha256", "0" * 63),
        ("rate", -1),
    ],
)
def test_a_bad_document_is_rejected_by_the_name_of_the_member(member: str, value: Any) -> None:
    with pytest.raises(JobRejected, match=f"^{member}: "):
        image._parse({**GOOD, member: value}, "/srv")


def test_a_link_out_of_the_folder_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(JobRejected, match="not below"):
        image._parse({**GOOD, "url": f"{tmp_path}/in/link"}, f"{tmp_path}/in")


@pytest.mark.parametrize(
    "section", [[], {"rauc": "rauc"}, {"folder": 1}, {"reboot": []}, {"reboot": ["reboot"]}, {"raucd": "/usr/bin/rauc"}]
)
def test_a_wrong_section_of_agent_json_is_named(section: Any) -> None:
    with pytest.raises(ConfigError, match=r"^image"):
        check(section)


def test_the_section_reaches_the_configuration() -> None:
    members = {"endpoint": "a", "ca": "b", "thing_name": "c", "certificate": "d", "key": "e"}
    assert parse({**members, "image": {"rauc": "/usr/bin/rauc"}}).image == {"rauc": "/usr/bin/rauc"}
    assert parse(members).image is None

# SPDX-License-Identifier: Apache-2.0
"""Diagnostics bundles of a virtual board with a 128 KB heap, from the operator's command back to the operator."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.demo.judge import Judge, wait_for
from examples.demo.processes import DemoError, FleetManager
from hil.virtual_board import VirtualBoard
from tests.integration.rig import Rig

SEED = 20261124
MIB = 1 << 20
CHUNK = 900
CHUNKS = 1300  # 1.25 MB as JSON lines: 2 parts
COLLECTORS = f"""

@agent.diagnostics("broken")
def broken():
    raise ValueError("sensor off")


@agent.diagnostics("bulk")
def bulk():
    for n in range({CHUNKS}):
        yield "%08d " % n * {CHUNK // 9}


def main():
"""


class BulkRig(Rig):
    """Its application has a collector of more than a part; its flash has room for a part, its heap for nothing."""

    def __init__(self, fleet: FleetManager, judge: Judge, folder: Path, thing: str) -> None:
        super().__init__(fleet, judge, folder, thing)
        self.board = VirtualBoard(folder / "board", heap="128k", flash_kib=4096)
        self.board.flash(folder / "files")

    def _release(self, source: Path, version: str) -> None:
        edited = self.folder / f"source-{version}"
        shutil.copytree(source, edited)
        app = edited / "app.py"
        app.write_text(app.read_text().replace("\n\ndef main():\n", COLLECTORS))
        super()._release(edited, version)

    def request(self, job: str, *options: str) -> None:
        self.fleet.run("diagnostics", "request", job, "--target", f"thing/{self.thing}", *options)

    def show(self, job: str) -> list[dict[str, Any]]:
        """The lines of the bundle, verified by the command."""
        file = self.folder / f"{job}.jsonl"
        self.fleet.run("diagnostics", "show", job, "--output", str(file))
        return [json.loads(line) for line in file.read_text().splitlines()]

    def parts(self, job: str) -> int:
        """Parts that have arrived."""
        page = self.judge.s3.list_objects_v2(Bucket="edgeagent-uploads", Prefix=f"uploads/{self.thing}/{job}")
        return int(page["KeyCount"])


def bulk(lines: list[dict[str, Any]]) -> str:
    return "".join(line["bulk"] for line in lines if line["section"] == "bulk" and "bulk" in line)


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkRig]:
    rig = BulkRig(fleet, judge, tmp_path_factory.mktemp("rig"), "bulk-board")
    with rig.switched_on():
        yield rig


def check(rig: BulkRig, job: str, resets: bool = False) -> None:
    """The job succeeded, and what the operator gets is what the collectors gave, resets or not."""
    status, details = rig.outcome(job, 120)
    assert status == "SUCCEEDED", (details, rig.state())
    assert int(details["parts"]) == 2
    lines = rig.show(job)
    assert bulk(lines) == "".join(f"{n:08d} " * (CHUNK // 9) for n in range(CHUNKS))
    assert {"section": "broken", "error": "ValueError: sensor off"} in lines
    assert lines[-1]["section"] == "end"
    assert not resets or lines[-1]["resets"] > 0


def test_more_than_a_part_by_presigned_urls(rig: BulkRig) -> None:
    rig.request("urls", "--limit", str(4 * MIB), "--https")
    check(rig, "urls")


@pytest.mark.parametrize("option", ["", "--https"])
def test_power_lost_after_a_part_was_acknowledged(rig: BulkRig, option: str) -> None:
    job = f"cut{option}"
    rig.request(job, "--limit", str(4 * MIB), *filter(None, [option]))
    wait_for(lambda: rig.parts(job) or None, rig.state, 60)
    rig.board.kill()
    check(rig, job, resets=True)


@pytest.mark.parametrize("n", range(2))
def test_power_lost_at_a_flash_operation(rig: BulkRig, n: int) -> None:
    rng = random.Random(SEED + n)
    fuse = f"{rng.randrange(60, 900)}:{('torn', 'after')[n]}"
    rig.board.power_off()
    rig.request(f"fuse-{n}", "--limit", str(4 * MIB), *(["--https"] if n == 1 else []))
    rig.board.power_on(cut=fuse)
    check(rig, f"fuse-{n}")


def test_an_expired_url_fails_with_the_reason(rig: BulkRig) -> None:
    rig.board.power_off()
    rig.request("late", "--https", "--expires", "1", "--section", "memory")
    time.sleep(2)  # the life of the URL is the subject
    rig.board.power_on()
    status, details = rig.outcome("late")
    assert (status, details["reason"]) == ("FAILED", "part 0: HTTP 403 AccessDenied Request has expired")
    with pytest.raises(DemoError, match="Request has expired"):
        rig.show("late")


def test_selected_sections_are_shown_as_a_table_and_as_json(rig: BulkRig) -> None:
    rig.request("few", "--section", "memory", "--section", "boot")
    rig.outcome("few")
    assert "flash_free" in rig.fleet.run("diagnostics", "show", "few")
    found = json.loads(rig.fleet.run("diagnostics", "show", "few", "--json"))
    assert [line["section"] for line in found["lines"]] == ["memory", "boot", "end"]


def test_a_bundle_that_was_changed_is_refused(rig: BulkRig) -> None:
    rig.request("changed", "--section", "memory")
    rig.outcome("changed")
    key = f"uploads/{rig.thing}/changed"
    body = rig.judge.s3.get_object(Bucket="edgeagent-uploads", Key=key)["Body"].read()
    rig.judge.s3.put_object(Bucket="edgeagent-uploads", Key=key, Body=body.replace(b"free", b"fake"))
    with pytest.raises(DemoError, match="damaged"):
        rig.show("changed")

# SPDX-License-Identifier: Apache-2.0
"""An update in JSON, for services without CBOR: its blocks are a third larger, and so is what a board has to hold."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.rig import Rig

SEED = 20261126
DATA_BYTES = 198_000
HEAP = "144k"  # docs/ota.md says so


@pytest.fixture(scope="module")
def rig(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(fleet, judge, tmp_path_factory.mktemp("json"), "json-board", heap=HEAP)
    with rig.switched_on():
        yield rig


def test_blocks_in_json_bring_an_update(rig: Rig) -> None:
    rig.add_release("4.0.0", random.Random(SEED).randbytes(DATA_BYTES))
    document = rig.publish("4.0.0")
    # Its last block is of a size of which a packet would fit into a buffer made for blocks in CBOR: this failed once.
    assert 1024 < document["artifact"]["payload"] % 4096 * 4 // 3 < 4096
    rig.create_job("json", {**document, "form": "json"})
    status, details = rig.outcome("json", 120)
    assert (status, details.get("version")) == ("SUCCEEDED", "4.0.0"), (details, rig.state())
    rig.wait_running("4.0.0")
    assert rig.board.console.count("out of memory") <= 1, rig.board.console

# SPDX-License-Identifier: Apache-2.0
"""A small seeded sample of the fuzz targets; `make fuzz` runs them for longer, with a new seed each time."""

from __future__ import annotations

import pytest

from tests.fuzz import mqtt, mutate
from tests.fuzz.targets import TARGETS

SEED = 3
INPUTS = {"reader": 150, "memory": 30, "deltas": 150, "replies": 100}


@pytest.mark.parametrize("name", TARGETS)
def test_a_sample_of_inputs_breaks_no_rule(name: str) -> None:
    target, corpus = TARGETS[name]
    assert mutate.run(name, target, corpus, SEED, inputs=INPUTS.get(name, 2000))


def test_a_failure_can_be_replayed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        assert b"\x00\x00" not in data

    monkeypatch.setitem(TARGETS, "decoders", (broken, [b"ab"]))
    assert mqtt.main(["--seconds", "5", "--seed", "1", "--only", "decoders"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("python -m tests.fuzz.mqtt --only decoders --replay ")
    with pytest.raises(AssertionError):
        mqtt.main(line.split()[3:])

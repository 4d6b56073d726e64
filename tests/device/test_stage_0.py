# SPDX-License-Identifier: Apache-2.0
"""main.py on a virtual board with several agents: whatever an agent does, the board comes back with one that works.

The agents are the real one, as it is shipped, or a few lines in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edgeagent.ota import trial
from edgeagent.ota.generations import Generations
from edgefleet import devices
from hil.virtual_board import HARD_RESET, PWRON_RESET, WDT_RESET
from tests.device.bench import Bench
from tests.support import write_files

NEW = "def run(root, cause, wait):\n    print('new agent', cause)\n    while True: pass\n"
SHOW = """import sys
from edgeagent.ota import trial
def main():
    print("app under", sys.modules["edgeagent"].__path__, trial.status("/slots/agent"))
    while True: pass
"""


class Agents(Bench):
    """Bench with generations of the agent."""

    def __init__(self, folder: Path, chip: str = "unix") -> None:
        super().__init__(folder, chip)
        self.agents = self.root / "agent"
        self.slots = Generations(str(self.agents))
        self.slot("a", SHOW)

    def update(self, files: Mapping[str, str | bytes], version: str, running: str | None = None) -> None:
        """Put an agent on trial, as the one in slot `running` does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.slots, "running", lambda: running or "")
            path = self.slots.prepare(version.encode().hex().ljust(64, "0"))
        write_files(self.agents / os.path.basename(path), files)
        self.slots.complete("11" * 32, version, 0)
        self.slots.activate(version, "job/1", 60, "0")

    def wait_under(self, place: str) -> str:
        """Wait until the application runs under the agent in a folder; the state that it then shows."""
        start = f"app under {place}/edgeagent "
        self.wait(lambda: any(line.startswith(start) and line[-1:] == "}" for line in self.lines()))
        return next(line for line in self.lines() if line.startswith(start))

    def lines(self) -> list[str]:
        return self.board.console.splitlines()


def shipped(**changes: str | bytes | None) -> dict[str, str | bytes]:
    """The real agent's files; changes: to modules by name, None for one that is missing."""
    files: dict[str, str | bytes] = dict(devices.agent_bytecode("UNIX_VIRTUAL"))
    for name, data in changes.items():
        del files[f"edgeagent/{name}.mpy"]
        if data is not None:
            files[f"edgeagent/{name}.{'py' if isinstance(data, str) else 'mpy'}"] = data
    return files


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Agents]:
    one = Agents(tmp_path)
    yield one
    one.board.power_off()


def test_without_an_update_the_agent_of_the_factory_runs(bench: Agents) -> None:
    bench.start()
    bench.wait_under("/lib")
    assert not (bench.files / "slots" / "agent").exists()


def test_agent_on_trial_runs_the_application_in_its_own_slot(bench: Agents) -> None:
    bench.update(shipped(), "2")
    bench.start()
    assert "'state': 'trial'" in bench.wait_under("/slots/agent/a")


def test_confirmed_agent_runs_and_nothing_is_written_for_it(bench: Agents) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    before = trial.status(str(bench.agents))["n"]
    bench.start()
    assert f"'n': {before}," in bench.wait_under("/slots/agent/a")


@pytest.mark.parametrize("chip", ["unix", "rp2"])
def test_an_agent_that_waits_by_stage_0_feeds_the_watchdog(tmp_path: Path, chip: str) -> None:
    bench = Agents(tmp_path, chip)
    patient = """import time
def run(root, cause, wait):
    for n in range(20):
        wait(1)
        time.sleep_ms(100)
    print("waited")
    while True:
        wait(1)
"""
    bench.update(shipped(trampoline=patient), "2")
    bench.start()
    try:
        bench.wait_for("waited")
        assert bench.board.resets == [PWRON_RESET]
    finally:
        bench.board.power_off()


TORN = devices.agent_bytecode("UNIX_VIRTUAL")["edgeagent/__init__.mpy"][:3000]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (shipped(trampoline=None), "ImportError: no module named 'edgeagent.trampoline'"),
        (shipped(trampoline="def run(:\n"), "SyntaxError"),
        (shipped(trampoline="x = bytearray(10000000)\n"), "MemoryError"),
        (shipped(__init__=b"M\x63\x00\x1f" + bytes(40)), "ValueError: incompatible .mpy file"),
        (shipped(trampoline="def run(root, cause, wait):\n    {}['lost']\n"), "KeyError: lost"),
        (shipped(trampoline="def run():\n    pass\n"), "TypeError"),
    ],
    ids=["no trampoline", "syntax", "memory", "other bytecode", "raises when started", "other interface"],
)
def test_bad_agent_on_trial_goes_back_at_once_and_says_why(
    bench: Agents, files: Mapping[str, str | bytes], reason: str
) -> None:
    bench.update(files, "2")
    bench.start()
    line = bench.wait_under("/lib")
    assert "'state': 'rolled_back'" in line
    assert reason in line
    assert bench.board.resets[:2] == [PWRON_RESET, HARD_RESET]


@pytest.mark.parametrize(
    "files", [shipped(trampoline=NEW), shipped(__init__=TORN)], ids=["hangs", "file cut short, read for ever"]
)
def test_agent_on_trial_that_hangs_goes_back_after_three_watchdog_resets(
    bench: Agents, files: Mapping[str, str | bytes]
) -> None:
    bench.update(files, "2")
    bench.start()
    line = bench.wait_under("/lib")
    assert "interrupted: WDT_RESET, WDT_RESET, WDT_RESET" in line
    assert bench.board.resets[:4] == [PWRON_RESET, WDT_RESET, WDT_RESET, WDT_RESET]


def test_hang_in_the_trial_of_an_agent_is_not_held_against_the_application(bench: Agents) -> None:
    bench.update(shipped(trampoline=NEW), "2")
    bench.start()
    bench.wait_under("/lib")
    assert "new agent trial of the agent, WDT_RESET" in bench.board.console


def test_second_agent_goes_back_to_the_first_and_not_to_the_factory(bench: Agents) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    bench.update(shipped(trampoline=None), "3", "a")
    bench.start()
    bench.wait_under("/slots/agent/a")


def test_confirmed_agent_that_does_not_load_gives_way_to_the_one_before_it(bench: Agents) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    bench.update(shipped(__init__=b"M\x63\x00\x1f" + bytes(40)), "3", "a")
    trial.confirm(str(bench.agents))
    bench.start()
    assert "'active': 'b'" in bench.wait_under("/slots/agent/a")  # a firmware that loads it may come back
    assert bench.board.resets == [PWRON_RESET]


def test_at_last_the_agent_of_the_factory_runs(bench: Agents) -> None:
    bench.update(shipped(trampoline=None), "2")
    trial.confirm(str(bench.agents))
    bench.start()
    bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET]


def test_confirmed_agent_that_hangs_when_it_is_loaded_gives_way_after_some_restarts(bench: Agents) -> None:
    bench.update(shipped(__init__=TORN), "2")
    trial.confirm(str(bench.agents))
    bench.start()
    bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET, WDT_RESET, WDT_RESET, WDT_RESET, WDT_RESET]


def test_confirmed_agent_that_raises_when_it_is_started_gives_way_after_some_restarts(bench: Agents) -> None:
    bench.update(shipped(trampoline="def run(root, cause, wait):\n    1 / 0\n"), "2")
    trial.confirm(str(bench.agents))
    bench.start()
    bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET, HARD_RESET, HARD_RESET, HARD_RESET]


RAISES = "def run(root, cause, wait):\n    print('raises', __file__)\n    1 / 0\n"


def test_when_two_generations_raise_when_they_are_started_the_agent_of_the_factory_runs(bench: Agents) -> None:
    for version, running in (("2", None), ("3", "a")):
        bench.update(shipped(trampoline=RAISES), version, running)
        trial.confirm(str(bench.agents))
    bench.start()
    assert "'fails': 6" in bench.wait_under("/lib")
    ran = [line.split("/")[3] for line in bench.lines() if line.startswith("raises")]
    assert ran == ["b", "b", "b", "a", "a", "a"]
    assert bench.board.resets == [PWRON_RESET] + 6 * [HARD_RESET]


def test_when_the_agent_before_hangs_when_it_is_loaded_the_agent_of_the_factory_runs(bench: Agents) -> None:
    bench.update(shipped(__init__=TORN), "2")
    trial.confirm(str(bench.agents))
    bench.update(shipped(trampoline=RAISES), "3", "a")
    trial.confirm(str(bench.agents))
    bench.start()
    bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET] + 3 * [HARD_RESET] + 4 * [WDT_RESET]


def test_after_going_back_by_a_job_the_one_before_runs_and_not_the_one_that_failed(bench: Agents) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    bench.update(shipped(trampoline=RAISES), "3", "a")
    trial.confirm(str(bench.agents))
    document = trial.status(str(bench.agents))
    document["fails"] = 3  # of b; a runs
    trial.save(str(bench.agents), document)
    bench.slots.activate("2", "back/1/1", 60, "3")
    trial.confirm(str(bench.agents))
    bench.start()
    bench.wait_under("/slots/agent/a")
    assert bench.board.resets == [PWRON_RESET]


@pytest.mark.parametrize("fails", ["3", None, [], 1.5, -1, 1 << 40], ids=str)
def test_count_of_failures_of_another_form_runs_some_agent(bench: Agents, fails: object) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    document = trial.status(str(bench.agents))
    document["fails"] = fails
    trial.save(str(bench.agents), document)
    bench.start()
    bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET]


def test_trial_of_an_agent_ends_under_an_application_that_never_starts_it(bench: Agents) -> None:
    feeds = "    import machine, time\n    dog = machine.WDT(timeout=1000)\n    while True:\n        dog.feed()\n"
    bench.slot("a", SHOW.replace("    while True: pass\n", feeds + "        time.sleep_ms(50)\n"))
    bench.update(shipped(), "2")
    document = trial.status(str(bench.agents))
    document["deadline_s"] = 1
    trial.save(str(bench.agents), document)
    bench.start()
    assert "did not end" in bench.wait_under("/lib")
    assert bench.board.resets == [PWRON_RESET, HARD_RESET]


def test_agent_that_confirmed_itself_and_then_raises_stays_confirmed(bench: Agents) -> None:
    late = "from edgeagent.ota import trial\ndef run(root, cause, wait):\n"
    late += "    trial.confirm('/slots/agent')\n    print(trial.status('/slots/agent'))\n    1 / 0\n"
    bench.update(shipped(trampoline=late), "2")
    bench.start()
    line = bench.wait_under("/lib")
    assert "'state': 'confirmed'" in line
    assert "'fails': 3" in line


@pytest.mark.parametrize("damage", [b"", b"\x00garbage", b"{}"], ids=["empty", "garbage", "not sealed"])
def test_without_a_valid_state_the_agent_of_the_factory_runs(bench: Agents, damage: bytes) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    for name in ("state.json", "state.bak"):
        (bench.agents / name).write_bytes(damage)
    bench.start()
    bench.wait_under("/lib")


def test_one_damaged_copy_of_the_state_changes_nothing(bench: Agents) -> None:
    bench.update(shipped(), "2")
    trial.confirm(str(bench.agents))
    (bench.agents / "state.json").write_bytes(b"\x00garbage")
    bench.start()
    bench.wait_under("/slots/agent/a")


@pytest.mark.parametrize(
    "state",
    [
        {"n": 7, "state": "trial", "active": "z"},
        {"n": 7, "state": "trial", "active": "z", "boots": 3, "causes": []},
        {"n": 7, "state": "trial", "active": "z", "boots": 1, "causes": [], "before": "y"},
        {"n": 7, "active": "z"},
        {"n": 7},
        {},
    ],
    ids=str,
)
def test_state_of_another_form_runs_the_agent_of_the_factory(bench: Agents, state: dict[str, object]) -> None:
    bench.agents.mkdir(parents=True)
    trial.write_sealed(str(bench.agents / "state.json"), state)
    bench.start()
    bench.wait_under("/lib")


def test_crash_of_the_application_ends_the_trial_of_the_agent(bench: Agents) -> None:
    crash = SHOW.replace("    while True: pass", "    if 'trial' in trial.status('/slots/agent')['state']: 1 / 0")
    bench.slot("a", crash + "    while True: pass\n")
    bench.update(shipped(), "2")
    bench.start()
    line = bench.wait_under("/lib")
    assert "rolled_back" in line
    assert "ZeroDivisionError" in line


def test_no_agent_at_all_restarts_and_never_ends_in_the_repl(bench: Agents) -> None:
    bench.update(shipped(trampoline=None), "2")
    trial.confirm(str(bench.agents))
    (bench.files / "lib" / "edgeagent" / "trampoline.mpy").unlink()
    bench.start()
    bench.wait(lambda: len(bench.board.resets) > 2)
    assert bench.board.resets[1] == HARD_RESET

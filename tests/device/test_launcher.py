# SPDX-License-Identifier: Apache-2.0
"""A Linux host survives any application: real `edgeagent run` processes under the real supervisor, and files."""

from __future__ import annotations

import configparser
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent import compat, config
from edgeagent.errors import ConfigError
from edgeagent.ota import safety, trial
from edgeagent.ports.linux import EXIT_RESTART, launcher, preflight, supervisor
from edgeagent.ports.linux.programs import kernel_boot
from tests.device.test_cli import command, write_config
from tests.support import ROOT, default_signals

WAIT_S = 90.0
# The defaults of the supervisor would make each restart last seconds.
SUPERVISOR = """
import sys
from edgeagent.ports.linux.supervisor import Supervisor
sys.exit(Supervisor(sys.argv[2:], float(sys.argv[1]), (0.02, 0.05)).run())
"""
OLD = "import pathlib, time\npathlib.Path({!r}).touch()\ntime.sleep(600)\n"
SPOIL = "import os\nopen(os.environ['EDGEAGENT_CONFIG'], 'w').write('{')\n"
FEED = "import os, time\nfeed = lambda: os.write(int(os.environ['EDGEAGENT_WATCHDOG_FD']), b'.')\n"
TRIALS = [
    ("1 / 0", "ZeroDivisionError"),
    ("def main(): pass", "the application ended by itself"),
    ("if __name__ == '__main__':\n    1 / 0", "the application ended by itself"),
    (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
        "the application ended by itself",
    ),
    ("import sys\nsys.exit(0)", "the application called sys.exit"),
    ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])", "the application called sys.exit"),
    ("import os\nos._exit(0)", "interrupted: WDT or killed"),
    ("import os\nos._exit(2)", "interrupted: WDT or killed"),
    ("import os\nos._exit(78)", "interrupted: WDT or killed"),
    ("import os\nos.abort()", "interrupted: WDT or killed"),
    (SPOIL + "1 / 0", "ZeroDivisionError"),
    (SPOIL + "os._exit(1)", "interrupted: WDT or killed"),
    ("import os\nos.unlink(os.environ['EDGEAGENT_CONFIG'])\n1 / 0", "ZeroDivisionError"),
    ("import time\nwhile True: time.sleep(1)", "interrupted: WDT or killed"),
    (FEED + "while True: feed(); time.sleep(0.1)", "did not end"),
]


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = write_config(folder)
        self.root = str(folder / "slots")
        self.log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def slot(self, name: str, source: str) -> None:
        (self.folder / "slots" / name).mkdir(parents=True)
        (self.folder / "slots" / name / "app.py").write_text(source)

    def on_trial(self, source: str, deadline_s: int = 600) -> None:
        """Slot a is the old version, which touches the file `old`; b, `source`, is on trial."""
        self.slot("a", OLD.format(str(self.folder / "old")))
        self.slot("b", source)
        document = trial.status(self.root)
        document.update(active="b", before="a", state="trial", version="2", previous_version="1", job="j/1")
        document.update(causes=[], deadline_s=deadline_s, security_version=0)
        trial.save(self.root, document)

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, preexec_fn=default_signals
            )
        self._processes.append(process)
        return process

    def run(self) -> subprocess.Popen[bytes]:
        return self.start(command("run", "--config", str(self.config)))

    def supervise(self, watchdog: float = 600.0) -> subprocess.Popen[bytes]:
        child = launcher.module_command(str(self.config), "text")
        return self.start([sys.executable, "-c", SUPERVISOR, str(watchdog), *child])

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize(("source", "reason"), TRIALS, ids=[str(number) for number in range(len(TRIALS))])
def test_a_bad_version_on_trial_makes_room_for_the_old_one(source: str, reason: str, host: Host) -> None:
    preflight.load(str(host.config))  # as the start of the old version did
    good = host.config.read_bytes()
    host.on_trial(source, 1 if source.startswith(FEED) else 600)
    host.supervise(watchdog=3 if "sleep(1)" in source else 600)
    host.until((host.folder / "old").exists)
    status = trial.status(host.root)
    assert (status["state"], status["active"]) == ("rolled_back", "a")
    assert status["reason"].startswith(reason), status
    assert host.config.read_bytes() == good


@pytest.mark.parametrize(
    ("source", "kernel", "state", "reason"),
    [
        ("import library_of_the_old_system", "before", "rolled_back", "ModuleNotFoundError"),
        ("import os\nos._exit(1)", "before", "rolled_back", "WDT or killed"),
        ("1 / 0", "", "trial", ""),
    ],
    ids=["crash", "killed", "not restarted into yet"],
)
def test_a_system_on_trial_in_which_the_application_crashes_is_not_kept(
    source: str, kernel: str, state: str, reason: str, host: Host
) -> None:
    edited(host.config, image={"rauc": "/usr/bin/rauc"})
    host.slot("a", source)
    root = host.root + "/image"
    Path(root).mkdir()
    record = trial.status(root)
    record.update(state="trial", active="image", version="2", before="rootfs.0", kernel=kernel or kernel_boot())
    trial.save(root, record)
    for _ in (1, 2):
        assert host.run().wait(WAIT_S), host.log.read_text()
    assert trial.status(root)["state"] == state
    assert str(trial.status(root)["reason"] or "").startswith(reason)


def test_a_stop_is_no_crash_and_status_0(host: Host) -> None:
    host.slot("a", OLD.format(str(host.folder / "old")))
    for _ in range(2):
        process = host.run()
        host.until((host.folder / "old").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        (host.folder / "old").unlink()
    assert safety.last_crash(host.root)["count"] == 0


def test_a_stop_that_the_application_answers_with_an_exit_of_its_own_is_a_stop(host: Host) -> None:
    text = "import pathlib, sys, time\ntry:\n    pathlib.Path({!r}).touch()\n    time.sleep(600)\n"
    host.slot("a", text.format(str(host.folder / "old")) + "finally:\n    sys.exit(3)\n")
    process = host.run()
    host.until((host.folder / "old").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert safety.last_crash(host.root)["count"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_leaves_a_trial_as_it_is(number: int, host: Host) -> None:
    host.on_trial(OLD.format(str(host.folder / "up")))
    process = host.run()
    host.until((host.folder / "up").exists)
    process.send_signal(number)
    assert process.wait(WAIT_S) == 0
    assert trial.status(host.root)["state"] == "trial"
    assert not (host.folder / "state" / "running").exists()


def test_a_signal_that_is_ignored_stays_so(host: Host) -> None:
    host.slot("a", OLD.format(str(host.folder / "old")))
    process = host.start(["nohup", *command("run", "--config", str(host.config))])
    host.until((host.folder / "old").exists)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0


STUBBORN = {
    "catches everything": "while True:\n    try: time.sleep(600)\n    except BaseException: pass\n",
    "thread": "import threading\nthreading.Thread(target=time.sleep, args=(600,)).start()\ntime.sleep(600)\n",
    "at exit": "import atexit\natexit.register(time.sleep, 600)\ntime.sleep(600)\n",
}


@pytest.mark.parametrize("what", STUBBORN)
def test_a_stop_ends_in_time_whatever_the_application_does(what: str, host: Host) -> None:
    host.slot("a", f"import pathlib, time\npathlib.Path({str(host.folder / 'old')!r}).touch()\n" + STUBBORN[what])
    program = "import sys\nfrom edgeagent import cli\nfrom edgeagent.ports.linux import launcher\n"
    program += "launcher.STOP_S = 0.5\nsys.exit(cli.main(['run', '--config', sys.argv[1]]))\n"
    process = host.start([sys.executable, "-c", program, str(host.config)])
    host.until((host.folder / "old").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert "did not stop" in host.log.read_text()
    assert not (host.folder / "state" / "running").exists()


FORKED = {
    "is stopped": ("os.write(writing, b'.') and time.sleep(600)", 0),
    "exits": ("sys.exit(3)", 3),
    "returns": ("", 0),
}


@pytest.mark.parametrize("what", FORKED)
def test_the_end_of_a_process_that_the_application_has_forked_says_nothing_of_it(what: str, host: Host) -> None:
    source, status = FORKED[what]
    text = "import os, pathlib, signal, sys, time\ndef main():\n    reading, writing = os.pipe()\n    pid = os.fork()\n"
    text += f"    if not pid:\n        return {source or None}\n"
    if what == "is stopped":
        text += "    os.read(reading, 1)\n    os.kill(pid, signal.SIGTERM)\n"
    text += f"    pathlib.Path({str(host.folder / 'up')!r}).write_text(str(os.waitpid(pid, 0)[1] >> 8))\n"
    host.on_trial(text + "    time.sleep(600)\n")
    host.run()
    host.until(lambda: (host.folder / "up").exists() and (host.folder / "up").read_text())
    assert (host.folder / "up").read_text() == str(status)
    assert trial.status(host.root)["state"] == "trial"
    assert (host.folder / "state" / "running").exists()


def test_an_agent_that_is_started_twice_runs_once_and_no_trial_pays_for_it(host: Host) -> None:
    host.on_trial(OLD.format(str(host.folder / "up")))
    first = host.run()
    host.until((host.folder / "up").exists)
    for _ in range(trial.MAX_BOOTS):
        assert host.run().wait(WAIT_S) == 1
    assert "another agent runs" in host.log.read_text()
    assert (trial.status(host.root)["state"], trial.status(host.root)["boots"]) == ("trial", 1)
    first.kill()
    first.wait()
    (host.folder / "up").unlink()
    host.run()
    host.until((host.folder / "up").exists)


def test_a_process_that_a_version_leaves_behind_does_not_keep_the_agent_from_starting(host: Host) -> None:
    left = host.folder / "left"
    text = "import os, time\nif not os.fork():\n    os.setsid()\n"
    text += f"    open({str(left)!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    text += f"while not os.path.exists({str(left)!r}) or not os.path.getsize({str(left)!r}): time.sleep(0.01)\n1 / 0\n"
    host.on_trial(text)
    host.supervise()
    try:
        host.until((host.folder / "old").exists)
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)


def test_restarts_by_the_watchdog_are_crashes(host: Host) -> None:
    host.slot("a", FEED + "feed()\nwhile True: time.sleep(1)\n")
    host.supervise(watchdog=0.5)
    host.until(lambda: safety.last_crash(host.root)["count"] == safety.MAX_CRASHES - 1)


def test_an_application_that_is_killed_three_times_makes_room_for_the_bare_agent(host: Host) -> None:
    host.slot("a", OLD.format(str(host.folder / "old")))
    for _ in range(safety.MAX_CRASHES):
        process = host.run()
        host.until((host.folder / "old").exists)
        process.kill()
        process.wait()
        (host.folder / "old").unlink()
    host.log.write_text("")
    host.run()
    host.until(lambda: "127.0.0.1:1" in host.log.read_text())  # that it cannot connect
    assert not (host.folder / "old").exists()


def test_the_bare_agent_makes_room_for_the_application_again(host: Host) -> None:
    host.slot("a", OLD.format(str(host.folder / "old")))
    trial.write_sealed(host.root + "/crash.json", {"count": safety.MAX_CRASHES, "reason": "x", "fresh": True})
    program = "import sys\nfrom edgeagent import cli\nfrom edgeagent.ota import safety\nsafety.BARE_S = 1\n"
    program += "sys.exit(cli.main(['run', '--config', sys.argv[1]]))\n"
    bare = host.start([sys.executable, "-c", program, str(host.config)])
    assert bare.wait(WAIT_S) == EXIT_RESTART
    assert not (host.folder / "old").exists()
    host.run()
    host.until((host.folder / "old").exists)


def edited(path: Path, **members: Any) -> str:
    text = json.dumps({**json.loads(path.read_text()), **members})
    path.write_text(text)
    return text


def test_what_was_wrong_with_agent_json_stays_to_be_read(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    preflight.load(str(path))
    good = edited(path, keepalive=90)
    preflight.load(str(path))
    wrong = edited(path, keepalive="often")
    assert preflight.load(str(path)).keepalive == 90
    assert (path.read_text(), (tmp_path / "agent.json.wrong").read_text()) == (good, wrong)


def test_one_that_cannot_be_put_back_for_lack_of_room_is_put_back_and_ends_the_trial(host: Host) -> None:
    path = host.config
    preflight.load(str(path))
    host.on_trial("")
    good = path.read_text()
    path.write_text("{")

    write = compat.write_atomic

    def full(name: str, *rest: Any, **options: Any) -> None:
        if name.startswith(str(path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(name, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compat, "write_atomic", full)
        preflight.load(str(path))
    assert path.read_text() == good
    status = trial.status(host.root)
    assert (status["state"], status["active"]) == ("rolled_back", "a")
    assert status["reason"].startswith("agent.json is spoilt")


def test_what_was_good_before_is_waited_for(host: Host) -> None:
    preflight.load(str(host.config))
    host.slot("a", OLD.format(str(host.folder / "old")))
    (host.folder / "ca.pem").rename(host.folder / "later")
    program = "import sys\nfrom edgeagent import cli\nfrom edgeagent.ports.linux import preflight\n"
    program += "preflight.AGAIN_S = 0.05\nsys.exit(cli.main(['run', '--config', sys.argv[1]]))\n"
    host.start([sys.executable, "-c", program, str(host.config)])
    host.until(lambda: "tried again" in host.log.read_text())
    (host.folder / "later").rename(host.folder / "ca.pem")
    host.until((host.folder / "old").exists)


def test_paths_hold_when_the_application_changes_its_folder(host: Host) -> None:
    edited(host.config, state_dir="state", slots_dir="slots")
    host.on_trial("import os\nos.chdir('/')\n1 / 0\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = command("run", "--config", host.config.name)
    assert subprocess.run(started, cwd=host.folder, env=environment, timeout=WAIT_S).returncode == EXIT_RESTART
    assert trial.status(host.root)["state"] == "rolled_back"


def test_a_configuration_that_names_files_that_are_not_there_is_put_back(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    preflight.load(str(path))
    edited(path, ca="nowhere.pem")
    assert preflight.load(str(path)).ca == str(tmp_path / "ca.pem")


def test_a_version_on_trial_does_not_decide_what_is_good(host: Host) -> None:
    preflight.load(str(host.config))
    host.on_trial("")
    edited(host.config, endpoint="nowhere.example")
    preflight.load(str(host.config))
    host.config.write_text("{")
    assert preflight.load(str(host.config)).endpoint == "127.0.0.1"


def test_what_no_copy_can_mend_is_said_and_nothing_replaced(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    preflight.load(str(path))
    (tmp_path / "ca.pem").unlink()
    for text in (path.read_text(), edited(path, keepalive="often")):
        path.write_text(text)
        with pytest.raises(ConfigError) as said:
            preflight.attempt(str(path))
        assert ("keepalive" if "often" in text else "ca.pem") in str(said.value)
        assert path.read_text() == text
    assert not (tmp_path / "agent.json.wrong").exists()


def test_a_damaged_copy_replaces_nothing(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    preflight.load(str(path))
    (tmp_path / "agent.json.good").write_bytes(b'{"endpoint": ')
    path.write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        preflight.attempt(str(path))
    assert path.read_text() == "{"


def test_a_socket_in_a_folder_is_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the name of a socket may have 107 bytes
        left.bind("control")
    assert (compat.is_dir(str(folder)), compat.is_dir(str(folder / "control"))) == (True, False)
    compat.remove_tree(str(folder))
    assert not folder.exists()


PI = ROOT / "boards" / "RASPBERRY_PI"


@pytest.fixture
def unit() -> configparser.SectionProxy:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(PI / "edgeagent.service")
    return found["Service"]


def test_systemd_starts_it_again_whatever_it_ended_with(unit: configparser.SectionProxy) -> None:
    assert (unit["Restart"], "RestartPreventExitStatus" in unit) == ("always", False)


def test_a_stop_has_ended_before_anybody_kills_it(unit: configparser.SectionProxy) -> None:
    assert launcher.STOP_S < supervisor.GRACE_S < float(unit["TimeoutStopSec"])


def test_what_the_agent_writes_lies_where_the_service_may_write(unit: configparser.SectionProxy) -> None:
    place = "/var/lib/" + unit["StateDirectory"]
    found = config.parse(json.loads((PI / "agent.json").read_text()), os.path.dirname(unit["ExecStart"].split()[-1]))
    assert unit["ProtectSystem"] == "strict"
    for path in (found.state_dir, found.slots_dir, found.trust):
        assert path is not None and (path + "/").startswith(place + "/"), path
    assert f"trust.json {place}/" in (PI / "README.md").read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    lines = (PI / "edgeagent.service").read_text().replace("/opt/edgeagent/bin/edgeagent", sys.executable)
    (tmp_path / "edgeagent.service").write_text(lines.replace("User=edgeagent\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "edgeagent.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

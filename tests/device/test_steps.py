# SPDX-License-Identifier: Apache-2.0
"""Steps of a job on Linux, with real programs: what runs, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import pwd
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent import log
from edgeagent.jobs import steps
from edgeagent.mqtt.backoff import Backoff
from edgeagent.ports.linux import programs
from tests.portable.job_service import Attributes, Device, Service, live

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Backoff, "next", lambda self: 0.001)
    monkeypatch.setattr("edgeagent.log._sink", lambda line: None)
    monkeypatch.setattr(programs, "GRACE_S", 0.3)
    (tmp_path / "handlers").mkdir(mode=0o755)
    yield


def program(name: str, text: str, mode: int = 0o755) -> Path:
    path = Path("handlers") / name
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(mode)
    return path


def handler(name: str, *arguments: Any, title: str = "one", **members: Any) -> dict[str, Any]:
    given = {"handler": name, "args": list(arguments), **members.pop("input", {})}
    return {"action": {"name": title, "type": "runHandler", "input": given, **members}}


def command(line: str, **members: Any) -> dict[str, Any]:
    return {"action": {"name": "one", "type": "runCommand", "input": {"command": line}, **members}}


def document(*entries: Any, **members: Any) -> dict[str, Any]:
    return {"version": "1.0", "steps": list(entries), **members}


class World:
    """A service with one job "j", and boots of a device that may run the programs of `handlers`."""

    def __init__(self, given: Any, **rules: Any) -> None:
        self.service = Service()
        self.service.add("j", given)
        names = sorted(path.name for path in Path("handlers").iterdir())
        self.rules: Any = {"path": "handlers", "allow": [*names, "reboot.sh", "missing.sh"], **rules}

    def boot(self, number: int = 1, scenario: Callable[[Device], Any] | None = None) -> bool:
        """Until the job is over; True if it ended by a power cut."""
        device = Device(self.service, number)
        device.config = SimpleNamespace(handlers=self.rules)
        device.config_path = str(Path("agent.json").resolve())
        return live(device, scenario or (lambda device: device.idle()))

    def end(self) -> tuple[str, dict[str, str]]:
        self.boot()
        assert len(self.service.terminal("j")) == 1
        return self.service.status("j"), self.service.details("j")


def end(given: Any, **rules: Any) -> tuple[str, dict[str, str]]:
    return World(given, **rules).end()


def rejected(given: Any, **rules: Any) -> str:
    status, details = end(given, **rules)
    assert status == "REJECTED", details
    return details["reason"]


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def alive(path: str) -> bool:
    """Whether the process whose number a file holds still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{Path(path).read_text().strip()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- what runs


def test_steps_run_in_order_with_an_empty_user_and_their_arguments() -> None:
    program("note.sh", 'echo "$#:$1:$2:$3"')
    status, details = end(
        document(handler("note.sh", "a b", "$(id)"), handler("note.sh", "c", title="two"), includeStdOut="true")
    )
    assert (status, details["steps"]) == ("SUCCEEDED", "2")
    assert details["stdout"].split() == ["3::a", "b:$(id)", "2::c:"]


def test_a_command_is_split_at_commas_and_gets_no_user() -> None:
    program("say", 'for word in "$@"; do echo "[$word]"; done')
    _, details = end(document(command("say, a ,b\\,c,;reboot"), includeStdOut=True))
    assert details["stdout"].split(" ") == ["[a]", "[b,c]", "[;reboot]", ""]


def test_a_program_starts_with_a_bare_environment_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "token")
    program("env.sh", 'env | sort; cat; pwd; ls /proc/self/fd | wc -l; echo "$EDGEAGENT_JOB $EDGEAGENT_STEP"')
    _, details = end(document(handler("env.sh"), includeStdOut=True))
    assert "SECRET" not in details["stdout"]
    assert "PATH=/usr/local/sbin" in details["stdout"]
    assert " / " in details["stdout"]
    assert details["stdout"].endswith("j one ")


def test_output_is_reported_only_when_asked_for_and_errors_always() -> None:
    program("talk.sh", "echo out; echo err >&2")
    _, details = end(document(handler("talk.sh")))
    assert details == {"steps": "1", "stderr": "err "}


def test_of_much_output_the_end_is_reported_and_the_beginning_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("edgeagent.log._sink", lines.append)
    program("flood.sh", "echo first; yes xxxxxxxxx | head -c 3000000; echo last")
    _, details = end(document(handler("flood.sh"), includeStdOut=True))
    assert len(details["stdout"]) <= 1024
    assert details["stdout"].endswith("last ")
    shown = [line for line in lines if "one stdout|" in line]
    assert shown[0].endswith("first")
    assert sum(map(len, shown)) < 6 * programs.LOG_BYTES
    assert f"more than {programs.LOG_BYTES} bytes" in shown[-1]
    log.recent.clear()


def test_output_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    program("bytes.sh", "printf 'a\\377\\000b\\n'; head -c 2000 /dev/urandom")
    assert end(document(handler("bytes.sh"), includeStdOut=True))[0] == "SUCCEEDED"


def test_progress_names_each_step() -> None:
    program("ok.sh", "true")
    world = World(document(handler("ok.sh"), handler("ok.sh", title="two")))
    seen: list[Any] = []
    answer = world.service.answer

    def spy(rest: str, body: Any) -> Any:
        if body.get("status") == "IN_PROGRESS":
            seen.append(body["statusDetails"])
        return answer(rest, body)

    world.service.answer = spy  # type: ignore[method-assign]
    world.end()
    assert seen == [{"step": "one", "percent": "0"}, {"step": "two", "percent": "50"}]


def test_nothing_stays_open_however_a_step_ends() -> None:
    program("ok.sh", "true")
    program("bad.sh", "exit 1")
    program("none.sh", "true").write_text("#!/no/such/interpreter\n")

    def everything() -> int:
        for name in ("ok.sh", "bad.sh", "none.sh"):
            end(document(handler(name)))
        gc.collect()  # event loops of the tests themselves
        return len(os.listdir("/proc/self/fd"))

    before = everything()
    assert max(everything() for _ in range(3)) <= before


def test_a_program_that_cannot_be_started_fails_with_the_cause() -> None:
    program("none.sh", "true").write_text("#!/no/such/interpreter\n")
    status, details = end(document(handler("none.sh")))
    assert status == "FAILED"
    assert "step one: cannot be started: " in details["reason"]


# --- success and failure


def test_the_first_failure_ends_the_job_with_status_and_output() -> None:
    program("bad.sh", "echo why >&2; exit 3")
    program("ok.sh", "touch ran")
    status, details = end(document(handler("bad.sh"), handler("ok.sh"), finalStep=handler("ok.sh")))
    assert status == "FAILED"
    assert details == {"reason": "step one: exited with status 3", "stderr": "why "}
    assert not Path("ran").exists()


def test_a_program_that_a_signal_ended_has_failed() -> None:
    program("die.sh", "kill -11 $$")
    assert end(document(handler("die.sh")))[1]["reason"] == "step one: killed by signal 11"


@pytest.mark.parametrize("flag", [True, "true"])
def test_an_ignored_failure_goes_on_to_the_next_and_the_final_step(flag: Any, tmp_path: Path) -> None:
    program("bad.sh", "exit 3")
    program("ok.sh", f"echo $2 >> {tmp_path}/ran")
    given = document(handler("bad.sh", ignoreStepFailure=flag), handler("ok.sh", "a"), finalStep=handler("ok.sh", "z"))
    assert end(given)[0] == "SUCCEEDED"
    assert Path("ran").read_text().split() == ["a", "z"]


def test_a_failing_final_step_fails_the_job() -> None:
    program("ok.sh", "true")
    program("bad.sh", "exit 1")
    given = document(handler("ok.sh"), finalStep=handler("bad.sh", title="last"))
    assert end(given) == ("FAILED", {"reason": "step last: exited with status 1"})


@pytest.mark.parametrize(("allowed", "status"), [(None, "SUCCEEDED"), (2, "SUCCEEDED"), (1, "FAILED"), (0, "FAILED")])
def test_allow_std_err_limits_the_lines_of_errors(allowed: int | None, status: str) -> None:
    program("warn.sh", "echo a >&2; printf b >&2")
    members = {} if allowed is None else {"allowStdErr": allowed}
    assert end(document(handler("warn.sh", **members)))[0] == status


def test_with_allow_std_err_the_exit_status_counts_all_the_same() -> None:
    program("bad.sh", "exit 3")
    assert end(document(handler("bad.sh", allowStdErr=9)))[0] == "FAILED"


def test_the_older_form_is_one_step() -> None:
    program("old.sh", 'echo "$2"')
    given = {"operation": "old.sh", "args": ["x"], "path": "default", "includeStdOut": "true"}
    assert end(given) == ("SUCCEEDED", {"steps": "1", "stdout": "x "})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("download-file.sh", ["https://example.org/x", "/tmp/x"]),
        ("install-packages.sh", ["vim curl"]),
        ("remove-packages.sh", ["vim"]),
        ("start-services.sh", ["nginx"]),
        ("stop-services.sh", ["nginx"]),
        ("restart-services.sh", ["nginx"]),
    ],
)
def test_a_managed_template_runs_the_handler_of_its_name(name: str, arguments: list[str]) -> None:
    program(name, 'shift; echo "$@"')
    given = document(handler(name, *arguments, input={"path": "default"}, runAsUser=""), includeStdOut="true")
    assert end(given)[1]["stdout"].strip() == " ".join(arguments)


def test_conditions_of_the_document_skip_by_attributes_and_ignore_what_is_no_attribute(tmp_path: Path) -> None:
    program("ok.sh", f"touch {tmp_path}/ran")
    other = {"key": "operatingSystem", "value": ["ubuntu"], "type": "stringEqual"}
    status, details = end(document(handler("ok.sh"), conditions=[other, {"key": "engineStarts", "value": ["8"]}]))
    assert (status, details["reason"]) == ("SUCCEEDED", "condition not met: engineStarts is 7")
    assert details["skipped"] == "conditions[1]"
    assert not Path("ran").exists()
    assert Attributes.facts == {"engineStarts": 7}
    end(document(handler("ok.sh"), conditions=[other, {"key": "engineStarts", "value": ["8", "7"]}]))
    assert Path("ran").exists()


# --- what is refused, before anything runs


def test_without_configuration_everything_is_rejected_naming_what_is_missing() -> None:
    program("ok.sh", "true")
    world = World(document(handler("ok.sh")))
    world.rules = None
    status, details = world.end()
    assert status == "REJECTED"
    assert "handlers {path, allow}" in details["reason"]


@pytest.mark.parametrize(
    "rules",
    [{"path": 7}, {"path": ""}, {"allow": "ok.sh"}, {"users": {}}, {"timeout": 0}, {"timeout": True}, {"timeout": 1e9}],
)
def test_wrong_configuration_is_rejected_with_its_shape(rules: Any) -> None:
    program("ok.sh", "true")
    assert "handlers of agent.json must be" in rejected(document(handler("ok.sh")), **rules)


def test_what_is_not_allowed_is_rejected_by_name_and_nothing_has_run(tmp_path: Path) -> None:
    program("ok.sh", f"touch {tmp_path}/ran")
    program("other.sh", "true")
    reason = rejected(document(handler("ok.sh"), handler("other.sh")), allow=["ok.sh"])
    assert "'other.sh' is not in handlers.allow" in reason
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "name", ["../ok.sh", "/bin/sh", "./ok.sh", "..", ".", "sub/ok.sh", "ok.sh\n", ".hidden", "-x", "a" * 200, "ok.sh "]
)
def test_no_name_leads_out_of_the_folder_even_if_it_is_allowed(name: str) -> None:
    program("ok.sh", "true")
    assert "not the name of a program" in rejected(document(handler(name)), allow=[name])


@pytest.mark.parametrize("path", ["/bin", "..", "/tmp", "handlers/../handlers"])
def test_another_folder_is_rejected(path: str) -> None:
    program("ok.sh", "true")
    assert "only the handlers folder" in rejected(document(handler("ok.sh", input={"path": path})))


def test_the_configured_folder_may_be_named() -> None:
    program("ok.sh", "true")
    path = str(Path("handlers").resolve())
    assert end(document(handler("ok.sh", input={"path": path})), path=path)[0] == "SUCCEEDED"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o644, 0o4755, 0o2755])
def test_files_that_others_can_write_or_nobody_can_execute_or_are_set_uid_are_refused(mode: int) -> None:
    program("ok.sh", "true", mode)
    assert "ok.sh: is" in rejected(document(handler("ok.sh")))


def test_a_symbolic_link_a_folder_and_a_missing_file_are_refused() -> None:
    Path("handlers/link.sh").symlink_to("/bin/true")
    Path("handlers/folder.sh").mkdir(mode=0o755)
    assert "symbolic link" in rejected(document(handler("link.sh")))
    assert "not an executable file" in rejected(document(handler("folder.sh")))
    assert "No such file" in rejected(document(handler("missing.sh")))


def test_a_folder_that_others_can_write_is_refused_at_any_level(tmp_path: Path) -> None:
    program("ok.sh", "true")
    Path("handlers").chmod(0o775)
    assert "handlers: is writable" in rejected(document(handler("ok.sh")))
    Path("handlers").chmod(0o755)
    tmp_path.chmod(0o777)
    assert f"{tmp_path}: is writable" in rejected(document(handler("ok.sh")))
    tmp_path.chmod(0o700)


@ROOT_ONLY
def test_files_and_folders_of_another_user_are_refused() -> None:
    path = program("ok.sh", "true")
    os.chown(path, 12345, 0)
    assert "ok.sh: belongs to another user" in rejected(document(handler("ok.sh")))
    os.chown(path, 0, 0)
    os.chown("handlers", 12345, 0)
    assert "handlers: belongs to another user" in rejected(document(handler("ok.sh")))


GOOD = handler("ok.sh")["action"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (document(), "steps"),
        ({"steps": {}}, "steps"),
        ({"steps": None}, "steps"),
        (document(7), "steps[0]"),
        (document({}), "steps[0].action"),
        (document({"action": []}), "steps[0].action"),
        (document({"action": {**GOOD, "name": 7}}), "action.name"),
        (document({"action": {**GOOD, "name": ""}}), "action.name"),
        (document({"action": {**GOOD, "type": "runShell"}}), "action.type"),
        (document({"action": {**GOOD, "type": ["runHandler"]}}), "action.type"),
        (document({"action": {**GOOD, "input": "ok.sh"}}), "action.input"),
        (document({"action": {**GOOD, "input": {}}}), "input.handler"),
        (document(handler("ok.sh", 7)), "input.args"),
        (document(handler("ok.sh", None)), "input.args"),
        (document(handler("ok.sh", "a\0b")), "input.args"),
        (document(handler("ok.sh", "\ud800")), "no text"),
        (document(handler("ok.sh", input={"args": "x"})), "input.args"),
        (document(handler("ok.sh", input={"path": 7})), "input.path"),
        (document(handler("ok.sh", runAsUser=0)), "runAsUser"),
        (document(handler("ok.sh", runAsUser="no-such-user")), "no user"),
        (document(handler("ok.sh", runAsUser="-u root")), "no user"),
        (document(handler("ok.sh", allowStdErr="8")), "allowStdErr"),
        (document(handler("ok.sh", allowStdErr=-1)), "allowStdErr"),
        (document(handler("ok.sh", allowStdErr=True)), "allowStdErr"),
        (document(handler("ok.sh", ignoreStepFailure="yes")), "ignoreStepFailure"),
        (document(handler("ok.sh", ignoreStepFailure=1)), "ignoreStepFailure"),
        (document(command("")), "input.command"),
        (document(command(",ok.sh")), "'' is not in handlers.allow"),
        (document(command("sh,-c,reboot")), "'sh' is not in handlers.allow"),
        (document(command("ok.sh;reboot")), "'ok.sh;reboot' is not in"),
        (document(handler("ok.sh"), handler("ok.sh", "a", input={"args": [[]]})), "steps[1].action.input.args"),
        (document(handler("ok.sh"), finalStep=7), "finalStep"),
        (document(handler("ok.sh"), finalStep={}), "finalStep.action"),
        (document(handler("ok.sh"), finalStep=handler("../x")), "'../x' is not in"),
        (document(handler("ok.sh"), includeStdOut="maybe"), "includeStdOut"),
        (document(handler("ok.sh"), resume=[]), "resume"),
        (document(handler("ok.sh"), conditions={}), "conditions"),
        (document(handler("ok.sh"), conditions=[{"key": "a"}]), "conditions[0].value"),
        (document(handler("ok.sh"), conditions=[{"key": "a", "value": [1]}]), "conditions[0].value"),
        (document(handler("ok.sh"), conditions=[{"key": "a", "value": ["x"], "type": "regex"}]), "conditions[0].type"),
        (document(*[handler("ok.sh")] * 200), "at most 8192 bytes"),
        ({"operation": "evil.sh"}, "'evil.sh' is not in"),
        ({"operation": "../../bin/x.sh"}, "is not in"),
        ({"operation": "steps"}, "'steps' is not in handlers.allow"),
    ],
)
def test_a_hostile_or_malformed_document_is_rejected_by_member_and_nothing_has_run(
    given: Any, named: str, tmp_path: Path
) -> None:
    program("ok.sh", f"touch {tmp_path}/ran")
    assert named in rejected(given)
    assert not Path("ran").exists()


# --- users


def test_the_agents_own_user_is_no_change() -> None:
    program("who.sh", "id -u")
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert end(document(handler("who.sh", runAsUser=name), includeStdOut=True))[1]["stdout"].strip() == str(
        os.geteuid()
    )


@ROOT_ONLY
def test_root_becomes_a_listed_user_with_that_users_groups(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    program("who.sh", "id -u; id -g; id -G; echo $HOME")
    entry = pwd.getpwnam("nobody")
    status, details = end(document(handler("who.sh", runAsUser="nobody"), includeStdOut=True), users=["nobody"])
    assert status == "SUCCEEDED", details
    assert details["stdout"].split() == [str(entry.pw_uid), str(entry.pw_gid), str(entry.pw_gid), entry.pw_dir]


@ROOT_ONLY
def test_root_refuses_a_user_who_is_not_listed() -> None:
    program("ok.sh", "true")
    assert "nobody is not in handlers.users" in rejected(document(handler("ok.sh", runAsUser="nobody")))


def test_others_than_root_cannot_switch_and_sudo_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    program("ok.sh", "true")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    reason = rejected(document(handler("ok.sh", runAsUser="nobody")), users=["nobody"])
    assert "runs as root" in reason
    assert "sudo is not used" in reason


# --- time, cancellation, restarts


def test_a_step_over_its_time_is_killed_with_all_its_children(tmp_path: Path) -> None:
    program("slow.sh", f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/child; echo busy >&2; wait; sleep 60")
    status, details = end(document(handler("slow.sh")), timeout=1)
    assert status == "FAILED"
    assert details == {"reason": "step one: took longer than 1 s", "stderr": "busy "}
    assert not alive("child")


def test_what_a_step_leaves_behind_is_killed_and_holds_up_nothing(tmp_path: Path) -> None:
    program("leave.sh", f"sleep 60 & echo $! > {tmp_path}/child")
    start = time.monotonic()
    assert end(document(handler("leave.sh")))[0] == "SUCCEEDED"
    assert time.monotonic() - start < 5
    assert not alive("child")


def test_a_process_that_escapes_with_the_pipes_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PIPE_S", 0.2)
    program("escape.sh", f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' &\nsleep 0.3")
    assert end(document(handler("escape.sh")))[0] == "SUCCEEDED"
    os.kill(int(Path("child").read_text()), signal.SIGKILL)


def test_cancelling_the_job_kills_the_process_group(tmp_path: Path) -> None:
    program("slow.sh", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    world = World(document(handler("slow.sh"), handler("slow.sh")))

    async def scenario(device: Device) -> None:
        await until(lambda: alive("child"))
        world.service.cancel("j")
        await until(lambda: not alive("child"))
        await device.idle()

    world.boot(scenario=scenario)
    assert world.service.terminal("j") == []
    assert world.service.status("j") == "CANCELED"


def test_a_restart_in_the_middle_of_a_step_fails_it_and_kills_what_is_left(tmp_path: Path) -> None:
    program("slow.sh", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    world = World(document(handler("slow.sh")))

    async def scenario(device: Device) -> None:
        await until(lambda: Path("pid").exists() and device.runner._record["data"].get("process"))

    world.boot(scenario=scenario)
    # The orderly end of that boot has killed the program; kill -9 would not have: start one that is just the same.
    left = subprocess.Popen(["sleep", "60"], start_new_session=True)
    device = Device(world.service, 1)
    record = device.runner._record
    assert record is not None
    record["data"]["process"] = programs.identify(left.pid)
    device.runner._journal.write(record)
    world.boot(2)
    assert world.service.status("j") == "FAILED"
    assert world.service.details("j") == {"reason": "step one: interrupted by a restart (watchdog)"}
    assert left.wait(5) == -signal.SIGKILL


def test_a_document_may_ask_for_an_interrupted_step_to_run_again(tmp_path: Path) -> None:
    program("first.sh", f"echo first >> {tmp_path}/runs")
    program("slow.sh", f"echo slow >> {tmp_path}/runs; test -e {tmp_path}/again || exec sleep 60")
    world = World(document(handler("first.sh"), handler("slow.sh"), resume=True))

    async def scenario(device: Device) -> None:
        await until(lambda: Path("runs").exists() and "slow" in Path("runs").read_text())

    world.boot(scenario=scenario)
    Path("again").touch()
    world.boot(2)
    assert world.service.terminal("j") == ["SUCCEEDED"]
    assert Path("runs").read_text().split() == ["first", "slow", "slow"]


def test_a_process_that_only_has_the_number_is_left_alone() -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    boot, pid, born = programs.identify(other.pid).split(" ")
    assert not programs.reap(f"{boot} {pid} {int(born) - 1}")
    assert not programs.reap(f"other-boot {pid} {born}")
    assert other.poll() is None
    assert programs.reap(f"{boot} {pid} {born}")
    assert other.wait(5) == -signal.SIGKILL


# --- the machine's restart


def test_the_default_reboot_asks_systemd_and_is_proved_by_the_machines_boot_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("fake-systemctl", f"touch {tmp_path}/asked")
    monkeypatch.setattr(steps, "REBOOT_ARGV", [str(Path("handlers/fake-systemctl").resolve())])
    program("after.sh", f"touch {tmp_path}/after")
    world = World(document(handler("reboot.sh"), handler("after.sh")))

    async def scenario(device: Device) -> None:
        await until(lambda: Path("asked").exists())
        await asyncio.sleep(0.2)

    world.boot(scenario=scenario)
    assert world.service.terminal("j") == []
    monkeypatch.setattr(programs, "kernel_boot", lambda: "another-boot")
    world.boot(2)
    assert world.service.terminal("j") == ["SUCCEEDED"]
    assert Path("after").exists()


def test_a_machine_that_does_not_restart_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "REBOOT_S", 0.1)
    program("reboot.sh", "true")
    assert "did not restart" in end(document(handler("reboot.sh")))[1]["reason"]


def test_a_refused_reboot_fails_with_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    program("fake-systemctl", "echo Access denied >&2; exit 1")
    monkeypatch.setattr(steps, "REBOOT_ARGV", [str(Path("handlers/fake-systemctl").resolve())])
    status, details = end(document(handler("reboot.sh")))
    assert (status, details["stderr"]) == ("FAILED", "Access denied ")


def test_a_reboot_has_to_be_allowed_too() -> None:
    assert "'reboot.sh' is not in handlers.allow" in rejected(document(handler("reboot.sh")), allow=[])

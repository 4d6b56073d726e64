# SPDX-License-Identifier: Apache-2.0
"""Programs that a job may start: which files count, as whom they run, and how they are ended.

A program is a regular file directly in one folder. Whoever can write to it can run what he likes as this agent, so the
file, the folder and all folders above must belong to root or the agent's own user and be writable by nobody else (as
sshd's StrictModes; a sticky folder such as /tmp is fine above). No shell and no sudo is ever involved. A program gets
its own session; what is left of that process group when it ends, is cancelled or takes too long is killed, so a program
that is to leave something running asks the service manager for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import signal
import stat
import subprocess
from collections.abc import Callable
from typing import Any

from edgeagent.compat import wait_for
from edgeagent.errors import JobFailed, JobRejected

TAIL_BYTES = 4096  # kept of each stream: 1024 characters of up to 4 bytes (statusDetails, aws-iot-protocol.md 1.1)
LOG_BYTES = 16384  # shown of each stream
GRACE_S = 5.0  # between SIGTERM and SIGKILL
PIPE_S = 2.0  # for output that is still in the pipes when the program has ended
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _check(path: str, above: bool = False) -> os.stat_result:
    """The lstat of a path that only root and this user can change. Raises JobRejected."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        raise JobRejected(f"{path}: {error.strerror}") from None
    if stat.S_ISLNK(facts.st_mode):
        raise JobRejected(f"{path}: is a symbolic link")
    if facts.st_uid not in (0, os.geteuid()):
        raise JobRejected(f"{path}: belongs to another user")
    if facts.st_mode & 0o022 and not (above and facts.st_mode & stat.S_ISVTX):
        raise JobRejected(f"{path}: is writable by group or others")
    return facts


def locate(folder: str, name: str) -> str:
    """The path of program `name` in `folder`. Raises JobRejected saying what is wrong with name, file or folders."""
    if not _NAME.fullmatch(name):
        raise JobRejected(f"{name[:64]!r}: is not the name of a program in the handlers folder")
    folder = os.path.realpath(folder)
    parent = folder
    while parent != "/":
        parent = os.path.dirname(parent)
        _check(parent, above=True)
    if not stat.S_ISDIR(_check(folder).st_mode):
        raise JobRejected(f"{folder}: is not a folder")
    path = f"{folder}/{name}"
    mode = _check(path).st_mode
    if not stat.S_ISREG(mode) or not mode & 0o111 or mode & (stat.S_ISUID | stat.S_ISGID):
        raise JobRejected(f"{path}: is not an executable file, or is set-uid")
    return path


def account(user: str, allowed: list[str]) -> dict[str, Any]:
    """How to become `user`, as arguments of a subprocess and `home`; nothing to change for "" and the agent's own user.

    Raises JobRejected unless the agent is root and `user` is one of `allowed`.
    """
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except (KeyError, ValueError):
        if user:
            raise JobRejected(f"runAsUser: there is no user {user[:64]!r}") from None
        return {"home": "/"}
    if entry.pw_uid == os.geteuid():
        return {"home": entry.pw_dir}
    if os.geteuid() != 0:
        raise JobRejected(f"runAsUser: only an agent that runs as root can become {user}; sudo is not used")
    if user not in allowed:
        raise JobRejected(f"runAsUser: {user} is not in handlers.users of agent.json")
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"home": entry.pw_dir, "user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


class Output:
    """One stream of a program: its end, how many lines it had, and its beginning shown line by line."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._tail = bytearray()
        self._line = bytearray()
        self._shown = 0
        self._newlines = 0

    async def read(self, pipe: int) -> None:
        """Until the pipe ends, and close it; bounded memory whatever comes."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            await self._take(stream)
        finally:
            transport.close()

    async def _take(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(4096):
            self._newlines += data.count(b"\n")
            self._tail += data
            del self._tail[:-TAIL_BYTES]
            if self._shown < LOG_BYTES:
                self._shown += len(data)
                *lines, rest = (self._line + data).split(b"\n")
                for line in lines:
                    self._show(line.decode("utf-8", "replace"))
                self._line = rest
                if self._shown >= LOG_BYTES:
                    self._show(f"(more than {LOG_BYTES} bytes)")
        if self._shown < LOG_BYTES and self._line:
            self._show(self._line.decode("utf-8", "replace"))

    def lines(self) -> int:
        """How many there were; the last one may have no newline."""
        return self._newlines + (not self._tail.endswith(b"\n") and bool(self._tail))

    def tail(self) -> str:
        """The last 1024 characters."""
        return self._tail.decode("utf-8", "replace")[-1024:]


def _born(pid: int) -> str:
    """When a process began, in clock ticks since the machine did (proc(5), field 22); "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read(4096).rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def identify(pid: int) -> str:
    """Text by which `reap` finds this very process again, and no later one with its number."""
    return f"{kernel_boot()} {pid} {_born(pid)}"


def kernel_boot() -> str:
    """Different after every restart of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def reap(identity: str) -> bool:
    """Kill the process group of a program that outlived the agent that started it; True if it was still there."""
    boot, pid, born = identity.split(" ")
    if boot != kernel_boot() or not born or _born(int(pid)) != born:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(int(pid), signal.SIGKILL)
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def execute(
    argv: list[str],
    seconds: float,
    owner: dict[str, Any],
    environment: dict[str, str],
    show: Callable[[str, str], None],
    started: Callable[[str], None],
) -> tuple[int, Output, Output]:
    """Run a program to its end: (exit status, or minus the signal that ended it; its output; its errors).

    owner: of `account`. environment: added to PATH, LANG and HOME. show: told (stream, line). started: told the
    process's identity as soon as it runs. Raises JobFailed if it cannot be started or takes longer than `seconds`;
    cancelling ends the process group first.
    """
    owner = dict(owner)
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": owner.pop("home"), **environment}
    streams = (Output(lambda line: show("stdout", line)), Output(lambda line: show("stderr", line)))
    # Pipes of our own: asyncio's end a wait for the process only when the last one who holds them has gone.
    pipes = [os.pipe(), os.pipe()]
    readers = [asyncio.create_task(stream.read(pipe[0])) for stream, pipe in zip(streams, pipes, strict=True)]
    late = False
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                cwd="/",
                env=environment,
                start_new_session=True,
                **owner,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise JobFailed(f"cannot be started: {error}") from None
        finally:
            for pipe in pipes:
                os.close(pipe[1])
        try:
            started(identify(process.pid))
            try:
                await wait_for(process.wait(), seconds)
            except asyncio.TimeoutError:
                late = True
        finally:
            await _end(process)
    finally:
        # Without a program they are at their end already.
        await asyncio.wait(readers, timeout=PIPE_S)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    if late:
        raise JobFailed(f"took longer than {seconds:g} s", {"stderr": streams[1].tail()})
    assert process.returncode is not None
    return process.returncode, streams[0], streams[1]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of the process group is left when this returns or is cancelled."""
    try:
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await wait_for(process.wait(), GRACE_S)
    finally:
        _signal(process.pid, signal.SIGKILL)
    await process.wait()

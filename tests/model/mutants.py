# SPDX-License-Identifier: Apache-2.0
"""Defects that the model test must find: each replaces one function of the agent by a plausible wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgeagent import compat
from edgeagent.errors import JobFailed, TransportError
from edgeagent.jobs import journal, protocol, reboot
from edgeagent.jobs.journal import Journal
from edgeagent.jobs.runner import JobContext, Runner
from edgeagent.mqtt.backoff import Backoff
from tests.model.device import _Handlers

Patch = tuple[Any, str, Any]
_report, _ask, _execute, _attach = Runner._report, Runner._ask, Runner._execute, Runner.attach
_update, _get = protocol.update, _Handlers.get


def journal_is_not_written() -> Patch:
    return Journal, "write", lambda self, record: None


def journal_is_not_atomic() -> Patch:
    def write_atomic(path: str, data: bytes, private: bool = False) -> None:
        with compat.open(path, "wb") as file:  # type: ignore[attr-defined]
            file.write(data)
            compat.sync_file(file)
        compat.sync_dir(path.rpartition("/")[0])

    return journal, "write_atomic", write_atomic


def journal_is_not_synced() -> Patch:
    def write_atomic(path: str, data: bytes, private: bool = False) -> None:
        with compat.open(path + ".new", "wb") as file:  # type: ignore[attr-defined]
            file.write(data)
        compat.os.rename(path + ".new", path)

    return journal, "write_atomic", write_atomic


def forgets_before_the_report_is_accepted() -> Patch:
    async def report(self: Any, record: Any) -> bool:
        self._journal.clear()
        return await _report(self, record)

    return Runner, "_report", report


def takes_a_lost_report_for_accepted() -> Patch:
    async def report(self: Any, record: Any) -> bool:
        try:
            return await _report(self, record)
        except TransportError:
            return self._forget("reported")

    return Runner, "_report", report


def takes_throttling_for_the_end() -> Patch:
    return protocol, "OVER", (*protocol.OVER, *protocol.PASSING)


def reports_success_before_the_handler_ended() -> Patch:
    async def execute(self: Any, job: Any) -> None:
        with suppress(Exception):
            await self.update(job.id, "SUCCEEDED", None, job.execution)
        await _execute(self, job)

    return Runner, "_execute", execute


def runs_again_what_cannot_go_on() -> Patch:
    def get(self: Any, operation: str) -> Any:
        found = _get(self, operation)
        return found and (found[0], True)

    return _Handlers, "get", get


def does_not_say_that_it_goes_on() -> Patch:
    return JobContext, "resumed", property(lambda self: False, lambda self, value: None)


def ignores_the_cancellation() -> Patch:
    async def ask(self: Any, *arguments: Any) -> Any:
        running = self._job
        return await _ask(self, *arguments) or running

    return Runner, "_ask", ask


def checkpoint_stays_in_memory() -> Patch:
    def checkpoint(self: Any, **data: Any) -> None:
        self.data = {**self.data, **data}

    return JobContext, "checkpoint", checkpoint


def updates_name_no_execution() -> Patch:
    def update(*arguments: Any) -> dict[str, Any]:
        body = _update(*arguments)
        del body["executionNumber"]
        return body

    return protocol, "update", update


def mistakes_an_id_that_is_used_again() -> Patch:
    return Runner, "_queued", property(lambda self: None, lambda self, value: None)


def never_asks_whether_it_is_still_ours() -> Patch:
    return Runner, "_sure", property(lambda self: True, lambda self, value: None)


def two_handlers_at_once() -> Patch:
    def notified(self: Any, *_: Any) -> None:
        self._job = None
        self._wake.set()

    return Runner, "_notified", notified


def sleeps_through_notifications() -> Patch:
    return Runner, "_notified", lambda self, *_: None


def subscribes_only_once() -> Patch:
    async def attach(self: Any) -> None:
        if not hasattr(self, "attached"):
            await _attach(self)
        self.attached = True
        self._wake.set()

    return Runner, "attach", attach


def never_waits() -> Patch:
    return Backoff, "next", lambda self: 0.0


def rejects_what_failed() -> Patch:
    return JobFailed, "status", "REJECTED"


def reports_no_reason() -> Patch:
    return protocol, "clean_details", lambda details: {}


def reboots_without_rebooting() -> Patch:
    async def run(job: Any) -> dict[str, Any]:
        return {"bootId": job.agent.port.boot_id()}

    return reboot, "run", run


MUTANTS: tuple[Callable[[], Patch], ...] = (
    journal_is_not_written,
    journal_is_not_atomic,
    journal_is_not_synced,
    forgets_before_the_report_is_accepted,
    takes_a_lost_report_for_accepted,
    takes_throttling_for_the_end,
    reports_success_before_the_handler_ended,
    runs_again_what_cannot_go_on,
    does_not_say_that_it_goes_on,
    ignores_the_cancellation,
    checkpoint_stays_in_memory,
    updates_name_no_execution,
    mistakes_an_id_that_is_used_again,
    never_asks_whether_it_is_still_ours,
    two_handlers_at_once,
    sleeps_through_notifications,
    subscribes_only_once,
    never_waits,
    rejects_what_failed,
    reports_no_reason,
    reboots_without_rebooting,
)


@contextmanager
def applied(patch: Patch) -> Iterator[None]:
    """With the defect in place."""
    place, name, value = patch
    missing = object()
    kept = place.__dict__.get(name, missing)
    setattr(place, name, value)
    try:
        yield
    finally:
        if kept is missing:
            delattr(place, name)
        else:
            setattr(place, name, kept)

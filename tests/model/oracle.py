# SPDX-License-Identifier: Apache-2.0
"""What must be true after every schedule: one terminal status for an execution, and its cause is in the ledger."""

from __future__ import annotations

from bisect import bisect_left

from tests.model.device import OPERATIONS, Device, Run, config_text
from tests.model.network import Network
from tests.model.service import Record, Service
from tests.model.virtual import Violation

# Requests in any minute. The worst of 1,500 schedules was 34; without back-off there are hundreds.
PER_MINUTE = 60
_RESUME = {**OPERATIONS, "reboot": True, "config": True, "diagnostics": True}
_NEVER_BEGUN = ("unknown", "large", "huge", "shapeless")  # REJECTED before a handler is called
PATIENT = ("hang", "stubborn")  # end only because somebody ends them


def check(service: Service, device: Device, network: Network) -> None:
    """Raises Violation naming the execution."""
    by_key: dict[tuple[int, int], list[Run]] = {}
    for run in device.runs:
        by_key.setdefault((run.serial, run.number), []).append(run)
    for record in service.records.values():
        try:
            _execution(record, by_key.get((record.serial, record.number), []), device, network)
        except Violation as wrong:
            raise Violation(f"{record.job_id}/{record.number} ({record.operation}) {record.history}: {wrong}") from None
    if device.errors:
        raise Violation("a task failed and nobody looked")
    worst = rate(network)
    if worst > PER_MINUTE:
        raise Violation(f"{worst} requests in a minute")


def rate(network: Network) -> int:
    """The largest number of requests in any 60 s."""
    sent = network.requests
    return max((bisect_left(sent, at + 60) - n for n, at in enumerate(sent)), default=0)


def _must(good: bool, problem: str) -> None:
    if not good:
        raise Violation(problem)


def _execution(record: Record, runs: list[Run], device: Device, network: Network) -> None:
    resume = _RESUME.get(record.operation, False)
    if not resume:
        _must(len(runs) < 2, "its handler was called twice and cannot go on after a reset")
    for run in runs[1:]:
        _must(run.resumed, "its handler was called again as if it were new")
    if record.deleted is not None:
        return
    terminal = [entry for entry in record.history if entry[1] not in ("QUEUED", "IN_PROGRESS")]
    _must(len(terminal) == 1, f"{len(terminal)} terminal statuses")
    at, status, cause = terminal[0]
    if status in ("CANCELED", "REMOVED"):
        _must(cause == "operator", "nobody cancelled it")
    elif status == "TIMED_OUT":
        _must(cause == "time", "no timer ran out")
    else:
        _must(cause == "device", "the device did not say so")
        earlier = [run for run in runs if run.begun <= at]
        reason = record.details.get("reason", "")
        if status == "SUCCEEDED":
            _must(not reason, "a success with a reason: " + reason)
            _success(record, earlier, at, device, network)
        elif status == "REJECTED":
            _must(bool(reason), "rejected without a reason")
            _must(record.operation in (*_NEVER_BEGUN, "refuse"), "no reason to reject it")
            _must(not any(run.effects for run in earlier), "rejected after it did something")
        else:
            _failure(record, earlier, at, reason, resume, device)


def _success(record: Record, runs: list[Run], at: float, device: Device, network: Network) -> None:
    ends = [run for run in runs if run.ended == "returned" and run.ended_at <= at]
    _must(bool(ends), "succeeded before its handler did")
    last = ends[-1]
    operation = record.operation
    _must(operation not in ("fail", "crash", "refuse", "hang", "breaker", "starved", "cancels"), "cannot succeed")
    done = sorted({step for run in runs for step in run.effects})
    if operation in ("walk", "once", "hungry", "restarter"):
        _must(done == list(range(device.counts[record.serial])), f"succeeded after the steps {done}")
    elif operation == "reboot":
        _must(last.boot > runs[0].boot, "there was no restart")
    elif operation == "config":
        _must(str(record.serial) in config_text(device.disk)["attributes"], "the change is not in the file")
    elif operation == "diagnostics":
        name = record.job_id if record.number == 1 else f"{record.job_id}-{record.number}"
        parts = network.uploads.get(name, set())
        _must(any(len({n for n, of in parts if of == whole}) == whole for _, whole in parts), "parts are missing")


def _failure(record: Record, runs: list[Run], at: float, reason: str, resume: bool, device: Device) -> None:
    raised = [run.ended for run in runs if run.ended not in ("", "returned") and run.ended_at <= at]
    _must(bool(reason), "failed without a reason")
    if reason.startswith("interrupted by a reset"):
        _must(not resume, "could have gone on after the reset")
        begun = record.history[1][0]  # not only while the handler ran: it may have been about to
        _must(any(begun < boot < at for boot in device.boot_times), "there was no reset")
        return
    if reason.startswith(("journal: ", "flash: ", "interrupted by an error")):
        _must(device.disk.errors > 0, "the files were all right")
        return
    if reason == "out of memory":
        needed = 1 if device.not_restarted or device.disk.errors or not resume else 4
        _must(raised.count("MemoryError") + device.starved >= needed, "it had memory")
        return
    _must(reason in raised, f"nothing says {reason!r}: {raised}")
    if record.operation == "reboot":
        _must(device.not_restarted > 0 or device.disk.errors > 0, "it was restarted")
    elif record.operation == "diagnostics":
        _must(reason.startswith("part "), reason)
    else:
        expected = {"fail": "no oil", "crash": "ValueError: bad sensor", "cancels": "cancelled"}.get(record.operation)
        _must(reason == expected or device.not_restarted + device.disk.errors > 0, f"no cause for {reason!r}")

# SPDX-License-Identifier: Apache-2.0
"""Runs one job execution at a time, over lost links and resets, until the service has its terminal status.

`phase` is that of the journal; what happens if the state of the first column is interrupted:

    state                          link lost                      power lost, crash or reset
    -----------------------------  -----------------------------  ---------------------------------------------------
    idle, no record                ask again on reconnect         ask start-next at the first connection
    started at the service, not    ask again: start-next answers  the same: no side effect has happened yet
      journalled yet               the same execution
    phase "running"                the handler goes on            resume=True: describe, then call it with job.resumed;
                                                                  else FAILED "interrupted by a reset (cause)"
    phase "resetting"              (resetting now)                as "running"
    phase "report"                 send again on reconnect        send again
    report accepted, record not    (not possible)                 send again; refused as already terminal: forget
      removed yet

Whatever the service answers to say that the execution is over (cancelled, timed out, deleted: InvalidStateTransition,
TerminalStateReached, ResourceNotFound) makes the runner cancel the handler and forget. notify-next only wakes the
runner: what has become of the running execution is asked with describe, since another execution may be shown in front
without ours being over (aws-iot-protocol.md 3.11, J3 in the worked sequence).
"""

import asyncio
import gc

from edgeagent import clock, compat, log, topics
from edgeagent.compat import Any, const
from edgeagent.errors import AgentError, JobFailed, JobRejected, Refused, TransportError
from edgeagent.jobs import document, protocol
from edgeagent.jobs.context import JobContext
from edgeagent.jobs.journal import Journal
from edgeagent.limits import LIMITS
from edgeagent.mqtt.backoff import Backoff

_RUNNING = "running"
_REPORT = "report"
_PROGRESS_MS = const(30000)  # how long progress() tries to reach the service


class Runner:
    """Use: `run()` as a task for the agent's whole life; `attach()` after every connect."""

    def __init__(self, agent: "Any") -> None:
        """agent: has port, handlers, requests, thing_name, connected (asyncio.Event) and counters."""
        self.agent = agent
        self._journal = Journal(agent.port.state_dir + "/job.json")
        self._record = self._journal.read()
        self._wake = asyncio.Event()
        self._client: "Any" = None
        self._job: "JobContext | None" = None
        self._task: "Any" = None  # runs the handler of _job
        self._stopped = False

    def _topic(self, rest: str) -> str:
        return topics.jobs(self.agent.thing_name, rest)

    async def attach(self) -> None:
        """Subscribe in a new session and look for work. Raises TransportError, Refused."""
        client = self.agent.client
        if client is not self._client:
            client.on(self._topic("notify-next"), self._notified)
            client.oversized.append(self._notified)
            self._client = client
        # `+/get/+` covers `$next/get` as well; the notification comes last: replies must not be missed.
        rests = ("start-next/+", "+/get/+", "+/update/+", "notify-next")
        await self.agent.requests.subscribe([self._topic(rest) for rest in rests])
        self._wake.set()

    def _notified(self, topic: str, _: "Any") -> None:
        if topic.endswith("/notify-next"):
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; a handler that runs then is cancelled too, and its record stays in the journal."""
        backoff = Backoff()
        self._stopped = False
        try:
            while True:
                await self.agent.connected.wait()
                try:
                    waits = await self._step()
                    backoff.reset()
                except AgentError as error:
                    log.warning("jobs", "%s", compat.exc_text(error))
                    await asyncio.sleep(backoff.next())
                    continue
                if waits:
                    await self._wake.wait()
        finally:
            self._stopped = True
            if self._task is not None:
                self._task.cancel()
            self._job = self._task = None

    async def _step(self) -> bool:
        """Do the next thing; True if there is nothing to do before something wakes the runner."""
        self._wake.clear()
        job = self._job
        if job is not None:
            if not job.ended:
                await self._verify(job)
                return True
            self.agent.handlers.release()
            self._settle(job)
            self._job = self._task = None
        record = self._record
        if record is None:
            execution = await self._next()
            if execution is not None:
                return self._begin(execution)
            return self._record is None
        if record["phase"] == _REPORT:
            await self._report(record)
            return False
        return await self._resume(record)

    # --- taking an execution

    async def _next(self) -> "protocol.Execution | None":
        gc.collect()
        call = self.agent.requests.call
        try:
            return protocol.execution(await call(self._topic("start-next"), {}))
        except Refused as error:
            if error.code != "ReplyTooLarge":
                raise
        execution = protocol.execution(await call(self._topic("$next/get"), {"includeJobDocument": False}))
        if execution is not None:
            self._finish(self._new(execution), protocol.REJECTED, document.too_large())
        return None

    def _new(self, execution: "protocol.Execution") -> "dict[str, Any]":
        return {
            "jobId": execution.job_id,
            "executionNumber": execution.number,
            "versionNumber": execution.version,
            "bootId": self.agent.port.boot_id(),
            "operation": "",
            "phase": _RUNNING,
            "data": {},
        }

    def _begin(self, execution: "protocol.Execution") -> bool:
        """Start the handler of a new execution; False if it ended before it began."""
        record = self._new(execution)
        try:
            operation = document.parse(execution.document)[0]
            record["operation"] = operation
            found = self._find(operation)
            if found is None:
                raise JobRejected("unknown operation " + operation)
            self._journal.write(record)
        except JobRejected as error:
            self._finish(record, protocol.REJECTED, str(error))
        except JobFailed as error:
            self._finish(record, protocol.FAILED, str(error))
        else:
            self._record = record
            self._start(JobContext(self, execution, operation, {}, False), found[0])
            return True
        return False

    def _find(self, operation: str) -> "tuple[Any, bool] | None":
        try:
            return self.agent.handlers.get(operation)  # type: ignore[no-any-return]
        except Exception as error:  # a handler's module that is missing, damaged or too large for the free RAM
            log.error("jobs", "operation %s cannot be loaded: %s", operation, compat.exc_text(error))
            return None

    async def _resume(self, record: "dict[str, Any]") -> bool:
        port = self.agent.port
        found = self._find(record["operation"])
        if found is None or not found[1]:
            why = "an internal error"
            if record["bootId"] != port.boot_id():
                why = "a reset (%s)" % port.reset_cause()
            self._finish(record, protocol.FAILED, "interrupted by " + why)
            return False
        execution = await self._describe(record["jobId"], record["executionNumber"], True)
        if execution is None:
            self._forget("is over at the service")
            return False
        self._start(JobContext(self, execution, record["operation"], record["data"], True), found[0])
        return True

    async def _describe(self, job_id: str, number: int, with_document: bool) -> "protocol.Execution | None":
        """The execution while it is ours to work on, else None."""
        topic = self._topic(job_id + "/get")
        try:
            body = {"executionNumber": number, "includeJobDocument": with_document}
            reply = await self.agent.requests.call(topic, body)
        except Refused as error:
            if error.code in protocol.OVER:
                return None
            raise
        execution = protocol.execution(reply)
        if execution is None or execution.status not in (protocol.QUEUED, protocol.IN_PROGRESS):
            return None
        return execution

    # --- the handler

    def _start(self, job: JobContext, function: "Any") -> None:
        log.info("jobs", "%s: %s %s", job.id, "resuming" if job.resumed else "starting", job.operation)
        self._job = job
        self._task = asyncio.create_task(self._execute(job, function))

    async def _execute(self, job: JobContext, function: "Any") -> None:
        try:
            job.outcome = (protocol.FAILED, "out of memory", {})  # stands if not even the error can be handled
            try:
                details = await function(job) or {}
                if not isinstance(details, dict):
                    raise JobFailed("the handler returned %s, not a dict" % type(details).__name__)
                job.outcome = (protocol.SUCCEEDED, "", details)
            except JobRejected as error:
                job.outcome = (protocol.REJECTED, str(error), error.details)
            except JobFailed as error:
                job.outcome = (protocol.FAILED, str(error), error.details)
            except asyncio.CancelledError:
                job.outcome = (protocol.FAILED, "cancelled", {})
                if self._stopped:
                    job.outcome = None  # the journal says what was going on
            except Exception as error:  # the application's; it must end its job, not the agent
                job.outcome = (protocol.FAILED, compat.exc_text(error), {})
                gc.collect()
                log.error("jobs", "%s: %s", job.id, compat.traceback_text(error, 400))
            self._settle(job)
        except Exception as error:
            log.error(
                "jobs", "%s", compat.exc_text(error)
            )  # no RAM: once the handler's modules are gone, _step settles
        finally:
            job.ended = True
            self._wake.set()

    def _settle(self, job: JobContext) -> None:
        """Keep the outcome of an ended handler; at once, since the link may be down for long."""
        outcome = job.outcome
        if outcome is not None:
            if job.revoked:
                self._forget("was ended by the service")
            else:
                self._finish(self._record, *outcome)
            job.outcome = None

    async def _verify(self, job: JobContext) -> None:
        """Something changed at the service: cancel the handler if its execution is over there."""
        if await self._describe(job.id, job.execution, False) is None and not job.ended:
            job.revoked = True
            self._task.cancel()

    async def progress(self, job: JobContext, details: "dict[str, Any]") -> bool:
        """See JobContext.progress."""
        topic = self._topic(job.id + "/update")
        body = protocol.update(protocol.IN_PROGRESS, details, job.execution)
        backoff = Backoff()
        start = clock.ticks()
        while clock.elapsed_ms(start) < _PROGRESS_MS:
            try:
                await asyncio.wait_for(self.agent.connected.wait(), LIMITS.REQUEST_S)
                await self.agent.requests.call(topic, body)
                return True
            except asyncio.TimeoutError:
                continue
            except TransportError:
                pass
            except Refused as error:
                if error.code in protocol.OVER:
                    job.revoked = True
                    raise asyncio.CancelledError() from None
                if error.code not in protocol.PASSING:
                    log.warning("jobs", "%s: progress: %s", job.id, error)
                    break
            await asyncio.sleep(backoff.next())
        return False

    def keep(self, job: JobContext, data: "dict[str, Any]", phase: str = _RUNNING) -> None:
        """Make `data` and `phase` durable. Raises JobFailed."""
        record = dict(self._record or {})
        record["data"] = data
        record["phase"] = phase
        record["bootId"] = self.agent.port.boot_id()
        self._journal.write(record)
        self._record = record

    # --- the end of an execution

    def _finish(self, record: "Any", status: str, reason: str, details: "dict[str, Any] | None" = None) -> None:
        """The outcome is known: from here on it only has to be told."""
        details = dict(details or {})
        if reason:
            details["reason"] = reason
        details = protocol.clean_details(details)
        log.info("jobs", "%s: %s %s", record["jobId"], status, reason)
        record = dict(record)
        record["data"] = {}
        record["phase"] = _REPORT
        record["status"] = status
        record["details"] = details
        self._record = record
        try:
            self._journal.write(record)
        except JobFailed as error:  # in memory it is whole; only a reset before the report would lose the details
            log.warning("jobs", "%s", error)
            record = dict(record)
            record["details"] = {"reason": reason[:200]} if reason else {}
            try:
                self._journal.write(record)
            except JobFailed:
                pass

    async def _report(self, record: "Any") -> None:
        """Send the terminal status. Raises AgentError if it is worth another try later."""
        topic = self._topic(record["jobId"] + "/update")
        status = record["status"]
        try:
            await self.agent.requests.call(topic, protocol.update(status, record["details"], record["executionNumber"]))
        except Refused as error:
            if error.code in protocol.OVER:
                held = error.body.get("executionState")
                if status == protocol.REJECTED and held and held.get("status") == protocol.IN_PROGRESS:
                    record["status"] = protocol.FAILED  # a service that takes REJECTED only before the start (3.7)
                    return
                self._forget("not taken, %s" % compat.exc_text(error))
                return
            if record["details"] and error.code not in protocol.PASSING:
                log.error("jobs", "%s: details refused: %s", record["jobId"], compat.exc_text(error))
                record["details"] = {}  # the status matters more than its details
                return
            raise
        counters = self.agent.counters
        counters["jobs_" + status.lower()] = counters.get("jobs_" + status.lower(), 0) + 1
        self._forget("reported")

    def _forget(self, why: str) -> None:
        record = self._record
        if record is not None:
            log.info("jobs", "%s: %s", record["jobId"], why)
        self._record = None
        self._journal.clear()

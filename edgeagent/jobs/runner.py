# SPDX-License-Identifier: Apache-2.0
"""Runs one job execution at a time, over lost links and resets, until the service has its terminal status.

`status` is that of the journal; what happens if the state of the first column is interrupted:

    state                          link lost                      power lost, crash or reset
    -----------------------------  -----------------------------  ---------------------------------------------------
    idle, no record                ask again on reconnect         ask start-next at the first connection
    started at the service, not    ask again: start-next answers  the same: no side effect has happened yet
      journalled yet               the same execution
    IN_PROGRESS, handler runs or   the handler goes on            describe; resume=True: call it with job.resumed;
      resets the device                                           else FAILED "interrupted by a reset (cause)"
    terminal, to be reported       describe; send again           the same
    report accepted, record not    (not possible)                 send again; refused as already terminal: forget
      removed yet

Whatever the service answers to say that the execution is over (cancelled, timed out, deleted: InvalidStateTransition,
TerminalStateReached, ResourceNotFound) makes the runner cancel the handler and forget; so does a describe that shows
another queuedAt: the job was deleted, and its id used again. notify-next only wakes the runner: what has become of the
running execution is asked with describe, since another execution may be shown in front without ours being over
(aws-iot-protocol.md 3.11, J3 in the worked sequence). Before a report that is asked too, unless it was certain since
the link came up and the last notification.
"""

import asyncio

from edgeagent import clock, log, topics
from edgeagent.compat import Any, const, exc_text, traceback_text, wait_for
from edgeagent.errors import AgentError, JobFailed, JobRejected, ProtocolError, Refused, TransportError
from edgeagent.jobs import protocol
from edgeagent.jobs.journal import Journal
from edgeagent.jobs.registry import unload
from edgeagent.mqtt.backoff import Backoff

_RESTARTS = const(3)
_PROGRESS_MS = const(30000)  # how long progress() tries to reach the service


class JobContext:
    """One execution in the hands of its handler.

    id, execution, queued: job id, execution number, and when it was queued (epoch seconds or None). operation,
    document: what is asked for. resumed: True if this is the continuation after a reset. data: what `checkpoint` has
    stored. agent: the Agent. revoked: True once the service has ended the execution; nothing is reported any more.
    minutes: of the step timer, 1 to 10080: the service ends the
    execution as TIMED_OUT when so long has passed since the latest progress(), which starts it again; None: there is
    none; -1 stops it. First set from the document's stepTimeoutInMinutes; a handler may change it at any time.
    """

    id: str
    execution: int
    queued: "int | None"
    document: "Any"
    operation = ""
    resumed: bool
    data: "dict[str, Any]"
    minutes: "int | None" = None
    revoked = False
    agent: "Any"
    runner: "Any"
    task: "Any" = None  # runs the handler; None when it has ended
    outcome: "Any"  # (status, reason, details)

    async def progress(self, percent: "int | None" = None, **details: "Any") -> bool:
        """Report IN_PROGRESS with `details` as statusDetails (they replace the earlier ones; none leave them).

        Restarts the step timer, if there is one.
        True: the service has accepted it. False: it could not be told within 30 s, which is no reason to stop working.
        If the service has ended the job: `revoked` becomes true and asyncio.CancelledError is raised.
        """
        details["percent"] = percent
        start = clock.ticks()
        while clock.elapsed_ms(start) < _PROGRESS_MS:
            try:
                await wait_for(self.agent.connected.wait(), 15)
                await self.runner.update(self.id, "IN_PROGRESS", details, self.execution, self.minutes)
                return True
            except Refused as error:
                if error.code in protocol.OVER:
                    self.revoked = True
                    raise asyncio.CancelledError from None
                if error.code not in protocol.PASSING:
                    log.warning("jobs", "progress: %s", error)
                    break
            except (asyncio.TimeoutError, TransportError):
                pass
            await asyncio.sleep(self.runner.backoff.next())
        return False

    def checkpoint(self, **data: "Any") -> None:
        """Merge JSON values into `data` and make them durable before returning. Raises JobFailed if it cannot."""
        merged = dict(self.data)
        merged.update(data)
        self.runner.keep(self, "IN_PROGRESS", merged)
        self.data = merged

    def reset(self, reason: str) -> None:
        """Restart the device now. Does not return; a handler registered with resume=True is called again afterwards.

        Raises JobFailed if the port did not restart the device.
        """
        # The record has been in the journal since before the handler began.
        log.info("jobs", "%s: restart: %s", self.id, reason)
        self.agent.port.reset()
        raise JobFailed("the device did not restart")

    def starved(self) -> None:
        """Restart the device for lack of memory, and count that. Raises JobFailed, as `reset` and `checkpoint`."""
        self.checkpoint(restarts=self.data.get("restarts", 0) + 1)
        self.reset("out of memory")


class Runner:
    """Use: `run()` as a task for the agent's whole life; `attach()` after every connect."""

    def __init__(self, agent: "Any") -> None:
        """agent: has port, handlers, client, requests, thing_name and connected (asyncio.Event)."""
        self.agent = agent
        self.backoff = Backoff()
        self._topic = topics.jobs(agent.thing_name, "")
        self._journal = Journal(agent.port.state_dir + "/job.json")
        self._record = self._journal.read()
        # When the execution at hand was queued: an id of which the job was deleted may be used again.
        self._queued: "int | None" = (self._record or {}).get("queuedAt")
        self._sure = False  # that the execution to be reported is still ours
        self._job: "JobContext | None" = None
        self._wake = asyncio.Event()
        agent.client.on(self._topic + "notify-next", self._notified)
        agent.client.oversized.append(self._notified)

    async def attach(self) -> None:
        """Subscribe in a new session and look for work. Raises TransportError, Refused."""
        await self.agent.requests.subscribe([self._topic + rest for rest in topics.JOB_FILTERS])
        self._notified()

    def _notified(self, *_: "Any") -> None:
        """There may be work; a message that was too large to be received says no less."""
        self._sure = False
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; a handler that runs then is cancelled too, and its record stays in the journal.

        After any other exception it may be called again: the handler has gone on.
        """
        try:
            while True:
                await self.agent.connected.wait()
                try:
                    idle = await self._step()
                    self.backoff.reset()
                    if idle:
                        await self._wake.wait()
                except AgentError as error:
                    self._sure = False
                    log.warning("jobs", "%s", error)
                    await asyncio.sleep(self.backoff.next())
        except asyncio.CancelledError:
            job = self._job
            self._job = None
            if job and job.task:
                job.task.cancel()
            raise

    async def _step(self) -> bool:
        """Do the next thing; True if there is nothing to do before something wakes the runner."""
        self._wake.clear()
        job = self._job
        record = self._record
        if job:
            if not job.task:
                self._settle(job)  # there was no memory for it
                return False
            if not await self._ask(job.id + "/get", job.execution, False):
                self._sure = False  # should its handler have ended meanwhile
                if job.task:
                    job.revoked = True
                    job.task.cancel()
            return True
        if not record:
            found = await self._ask("start-next")
        else:
            working = record["status"] == "IN_PROGRESS"
            if working or not self._sure:
                found = await self._ask(record["jobId"] + "/get", record["executionNumber"], working)
                if not found:
                    from edgeagent.ota import safety

                    safety.cancel(self.agent.port, record)
                    return self._forget("is over")
            if not working:
                return await self._report(record)
        if found:
            self._job = job = JobContext()
            job.agent = self.agent
            job.runner = self
            job.id = found["jobId"]
            job.execution = found["executionNumber"]
            job.queued = self._queued
            job.document = found["jobDocument"]
            job.data = {}
            if record:
                job.data = record["data"]
                job.operation = record["operation"]
            job.resumed = bool(job.operation)  # else there was no memory to begin it
            job.task = asyncio.create_task(self._execute(job))
        return True

    async def _ask(self, rest: str, number: "int | None" = None, document: "Any" = True) -> "Any":
        """The execution that an answer tells of, while it is ours to work on, else None.

        number: of the execution; None for start-next, which answers even when there is nothing.
        """
        call = self.agent.requests.call
        body: "dict[str, Any]" = {"executionNumber": number, "includeJobDocument": document} if number else {}
        self._sure = True  # unless something comes in meanwhile
        try:
            reply = await call(self._topic + rest, body)
        except (Refused, ProtocolError) as error:
            if body and error.code in protocol.OVER:
                return None
            document = error.code
            if document != "ReplyTooLarge" and document != "MemoryError" and isinstance(error, Refused):
                raise
            # Too large, nested too deeply or no JSON, but started. Without its document it will be rejected, or begun
            # after a restart if it was for lack of memory; once it was asked for by name: whose answer it was is not
            # known, it may be a late one.
            if not body:
                rest = "$next/get"
            body["includeJobDocument"] = False
            reply = await call(self._topic + rest, body)
        found = protocol.execution(reply)
        if found:
            found.setdefault("jobDocument", document)
            queued = found.get("queuedAt")
            if not number:
                self._queued = queued
                if body:
                    return await self._ask(found["jobId"] + "/get", found["executionNumber"])
            elif self._queued and queued != self._queued:
                return None
        return found

    def update(self, job: str, status: str, details: "Any", number: int, minutes: "int | None" = None) -> "Any":
        """The request that reports a status, to be awaited."""
        call = self.agent.requests.call
        return call(self._topic + job + "/update", protocol.update(status, details, number, minutes))

    # --- the handler

    async def _execute(self, job: JobContext) -> None:
        # A reset passes all this as SystemExit, and leaves the journal as it is.
        job.outcome = "FAILED", "out of memory", None  # stands if not even the error can be handled
        found: "Any" = None
        try:
            try:
                from edgeagent.jobs.document import prepare

                operation = await prepare(job)
                del prepare
                unload(["edgeagent.jobs.document"])
                found = self.agent.handlers.get(operation)
                if not found:
                    raise JobRejected("unknown operation " + operation)
                job.operation = operation
                log.info("jobs", "%s: %s", job.id, operation)
                if not job.resumed:
                    self.keep(job, "IN_PROGRESS", job.data)
                elif job.data.get("restarts", 0) > _RESTARTS * found[1]:
                    raise MemoryError
                elif not found[1]:
                    port = self.agent.port
                    why = "an error"
                    if self._record["bootId"] != port.boot_id():  # type: ignore[index]
                        why = "a reset (%s)" % port.reset_cause()
                    raise JobFailed("interrupted by " + why)
                details = await found[0](job) or {}
                if not isinstance(details, dict):
                    raise JobFailed("the handler's result is not a dict")
                job.outcome = "SUCCEEDED", "", protocol.clean_details(details)
            except JobFailed as error:
                job.outcome = error.status, str(error), None
                job.outcome = error.status, str(error), protocol.clean_details(error.body)
            except asyncio.CancelledError:
                job.outcome = "FAILED", "cancelled", None
                await asyncio.sleep(0)  # whoever stops the agent cancels `run` too, and with it this
            except MemoryError:
                # Only a restart mends a fragmented heap. What has not begun, or can go on after one, gets a few.
                unload((), self.agent.handlers.resident)
                if (not found or found[1]) and job.data.get("restarts", 0) < _RESTARTS:
                    job.starved()
            except Exception as error:  # the application's; it must end its job, not the agent
                job.outcome = "FAILED", exc_text(error), None
                log.error("jobs", "%s", traceback_text(error, 400))
        except Exception:  # noqa: S110 - no memory (once the handler's modules are gone there will be), or bad details
            pass
        found = job.task = None
        self._wake.set()
        if self._job is job:  # else the runner has ended, and the journal says what was going on
            self._settle(job)

    def keep(self, job: JobContext, status: str, data: "dict[str, Any]") -> None:
        """Make durable how far `job` is: at work, with the data of its handler, or ended, with the details to report.

        Raises JobFailed.
        """
        self._record = {
            "jobId": job.id,
            "executionNumber": job.execution,
            "queuedAt": self._queued,
            "operation": job.operation,
            "bootId": self.agent.port.boot_id(),
            "status": status,
            "data": data,
        }
        self._journal.write(self._record)

    # --- the end of an execution

    def _settle(self, job: JobContext) -> None:
        """Keep the outcome of an ended handler; at once, since the link may be down for long."""
        unload((), self.agent.handlers.resident)
        if job.revoked:
            self._forget("ended by the service")
        else:
            status, reason, details = job.outcome
            details = dict(details or {})
            details["reason"] = reason or details.get("reason")
            log.info("jobs", "%s: %s %s", job.id, status, reason)
            try:
                self.keep(job, status, protocol.clean_details(details))
            except JobFailed as error:  # only a reset before the report would lose it
                log.error("jobs", "%s", error)
        self._job = None

    async def _report(self, record: "dict[str, Any]") -> bool:
        """Send the terminal status; False. Raises AgentError if it is worth another try later."""
        details = record["data"]
        status = record["status"]
        try:
            await self.update(record["jobId"], status, details, record["executionNumber"])
        except Refused as error:
            over = error.code in protocol.OVER
            if not over and (not details or error.code in protocol.PASSING):
                raise
            log.error("jobs", "report: %s", error)
            if not over:
                record["data"] = None  # the status matters more
                return False
            held = error.body.get("executionState")
            if status == "REJECTED" and held and held.get("status") == "IN_PROGRESS":
                record["status"] = "FAILED"  # a service that takes REJECTED only before the start (3.7)
                return False
        return self._forget("reported")

    def _forget(self, why: str) -> bool:
        """Nothing is left to be done for the execution; False."""
        log.info("jobs", why)
        self._record = None
        self._journal.clear()
        return False

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
    terminal, to be reported       send again on reconnect        send again
    report accepted, record not    (not possible)                 send again; refused as already terminal: forget
      removed yet

Whatever the service answers to say that the execution is over (cancelled, timed out, deleted: InvalidStateTransition,
TerminalStateReached, ResourceNotFound) makes the runner cancel the handler and forget. notify-next only wakes the
runner: what has become of the running execution is asked with describe, since another execution may be shown in front
without ours being over (aws-iot-protocol.md 3.11, J3 in the worked sequence).
"""

import asyncio

from edgeagent import compat, log, topics
from edgeagent.compat import Any
from edgeagent.errors import AgentError, JobFailed, JobRejected, Refused
from edgeagent.jobs import protocol
from edgeagent.jobs.context import JobContext
from edgeagent.jobs.journal import JOURNAL_BYTES, Journal
from edgeagent.jobs.registry import unload
from edgeagent.mqtt.backoff import Backoff


class Runner:
    """Use: `run()` as a task for the agent's whole life; `attach()` after every connect."""

    def __init__(self, agent: "Any") -> None:
        """agent: has port, handlers, client, requests, thing_name and connected (asyncio.Event)."""
        self.agent = agent
        self.backoff = Backoff()
        self._journal = Journal(agent.port.state_dir + "/job.json")
        self._record = self._journal.read()
        self._job: "JobContext | None" = None
        self._wake = asyncio.Event()
        agent.client.on(topics.jobs(agent.thing_name, "notify-next"), self._notified)
        agent.client.oversized.append(self._notified)

    def call(self, rest: str, body: "dict[str, Any]") -> "Any":
        """A request on `$aws/things/{thing}/jobs/{rest}`, to be awaited."""
        return self.agent.requests.call(topics.jobs(self.agent.thing_name, rest), body)

    async def attach(self) -> None:
        """Subscribe in a new session and look for work. Raises TransportError, Refused."""
        # `+/get/+` covers `$next/get` as well; the notification comes last: replies must not be missed.
        topic = topics.jobs(self.agent.thing_name, "")
        await self.agent.requests.subscribe(
            [topic + "start-next/+", topic + "+/get/+", topic + "+/update/+", topic + "notify-next"]
        )
        self._wake.set()

    def _notified(self, *_: "Any") -> None:
        """There may be work; a message that was too large to be received says no less."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; a handler that runs then is cancelled too, and its record stays in the journal."""
        try:
            while True:
                await self.agent.connected.wait()
                try:
                    idle = await self._step()
                    self.backoff.reset()
                    if idle:
                        await self._wake.wait()
                except AgentError as error:
                    log.warning("jobs", "%s", error)
                    await asyncio.sleep(self.backoff.next())
        finally:
            job = self._job
            self._job = None
            if job and job.task:
                job.task.cancel()

    async def _step(self) -> bool:
        """Do the next thing; True if there is nothing to do before something wakes the runner."""
        self._wake.clear()
        job = self._job
        record = self._record
        if job:
            if not job.task:
                self._settle(job)  # there was no memory for it
                return False
            if not await self._ask(job.id, job.execution, False) and job.task:
                job.revoked = True
                job.task.cancel()
            return True
        if not record:
            execution = await self._ask()
        elif record["status"] == "IN_PROGRESS":
            execution = await self._ask(record["jobId"], record["executionNumber"])
        else:
            await self._report(record)
            return False
        if execution:
            self._job = job = JobContext(self, execution, record)
            job.task = asyncio.create_task(self._execute(job))
        elif record:
            self._forget("is over")
            return False
        return True

    async def _ask(self, job_id: str = "", number: int = 0, document: bool = True) -> "dict[str, Any] | None":
        """The execution `number` of a job, by default the next one, while it is ours to work on, else None."""
        rest = "start-next"
        body: "dict[str, Any]" = {}
        if job_id:
            rest = job_id + "/get"
            body = {"executionNumber": number, "includeJobDocument": document}
        try:
            reply = await self.call(rest, body)
        except Refused as error:
            if job_id and error.code in protocol.OVER:
                return None
            if error.code != "ReplyTooLarge":
                raise
            # Started all the same. Without its document it will be rejected as too large.
            reply = await self.call("$next/get", {"includeJobDocument": False})
        return protocol.execution(reply)

    # --- the handler

    async def _execute(self, job: JobContext) -> None:
        # A reset passes all this as SystemExit, and leaves the journal as it is.
        job.outcome = "FAILED", "out of memory", None  # stands if not even the error can be handled
        found: "Any" = None
        try:
            try:
                from edgeagent.jobs.document import parse

                job.operation = parse(job.document)
                del parse
                unload(["edgeagent.jobs.document"])
                found = self.agent.handlers.get(job.operation)
                if not found:
                    raise JobRejected("unknown operation " + job.operation)
                log.info("jobs", "%s: %s", job.id, job.operation)
                if not job.resumed:
                    self.keep(job, {})
                elif not found[1]:
                    port = self.agent.port
                    reset = self._record["bootId"] != port.boot_id()  # type: ignore[index]
                    raise JobFailed("interrupted by " + ("a reset (%s)" % port.reset_cause() if reset else "an error"))
                details = await found[0](job)
                if not isinstance(details or {}, dict):
                    raise JobFailed("the handler's result is not a dict")
                job.outcome = "SUCCEEDED", "", details
            except JobFailed as error:
                job.outcome = error.status, str(error), error.details
            except asyncio.CancelledError:
                job.outcome = "FAILED", "cancelled", None
            except Exception as error:  # the application's; it must end its job, not the agent
                job.outcome = "FAILED", compat.exc_text(error), None
                log.error("jobs", "%s", compat.traceback_text(error, 400))
        except Exception:  # noqa: S110 - no memory; once the handler's modules are gone there will be
            pass
        found = job.task = None
        self._wake.set()
        if self._job is job:  # else the runner has ended, and the journal says what was going on
            self._settle(job)

    def keep(self, job: JobContext, data: "dict[str, Any]") -> None:
        """Make it durable that the handler of `job` is at work, and its `data`. Raises JobFailed."""
        record = {
            "jobId": job.id,
            "executionNumber": job.execution,
            "operation": job.operation,
            "bootId": self.agent.port.boot_id(),
            "status": "IN_PROGRESS",
            "data": data,
        }
        self._journal.write(record, JOURNAL_BYTES)
        self._record = record

    # --- the end of an execution

    def _settle(self, job: JobContext) -> None:
        """Keep the outcome of an ended handler; at once, since the link may be down for long."""
        unload()
        if job.revoked:
            self._forget("ended by the service")
        else:
            status, reason, details = job.outcome
            details = dict(details or {})
            details["reason"] = reason
            log.info("jobs", "%s: %s %s", job.id, status, reason)
            self._record = {
                "jobId": job.id,
                "executionNumber": job.execution,
                "operation": job.operation,
                "status": status,
                "details": protocol.clean_details(details),
            }
            try:
                self._journal.write(self._record)
            except JobFailed as error:  # only a reset before the report would lose it
                log.error("jobs", "%s", error)
        self._job = None

    async def _report(self, record: "dict[str, Any]") -> None:
        """Send the terminal status. Raises AgentError if it is worth another try later."""
        details = record["details"]
        status = record["status"]
        try:
            await self.call(record["jobId"] + "/update", protocol.update(status, details, record["executionNumber"]))
        except Refused as error:
            over = error.code in protocol.OVER
            if not over and (not details or error.code in protocol.PASSING):
                raise
            log.error("jobs", "report: %s", error)
            if not over:
                record["details"] = None  # the status matters more
                return
            held = error.body.get("executionState")
            if status == "REJECTED" and held and held.get("status") == "IN_PROGRESS":
                record["status"] = "FAILED"  # a service that takes REJECTED only before the start (3.7)
                return
        self._forget("done")

    def _forget(self, why: str) -> None:
        log.info("jobs", why)
        self._record = None
        self._journal.clear()

# SPDX-License-Identifier: Apache-2.0
"""What a job handler gets: facts about its job, and the ways to report, to remember and to restart."""

import asyncio

from edgeagent import clock, log
from edgeagent.compat import Any, const
from edgeagent.errors import JobFailed, Refused, TransportError
from edgeagent.jobs import protocol

_PROGRESS_MS = const(30000)  # how long progress() tries to reach the service


class JobContext:
    """One execution in the hands of its handler.

    id, execution: job id and execution number. operation, document: what is asked for. resumed: True if this is the
    continuation after a reset. data: what `checkpoint` has stored. agent: the Agent. revoked: True once the service
    has ended the execution; nothing is reported any more.
    """

    operation = ""
    revoked = False
    task: "Any" = None  # runs the handler; None when it has ended
    outcome: "Any" = None  # (status, reason, details)

    def __init__(self, runner: "Any", execution: "dict[str, Any]", record: "dict[str, Any] | None") -> None:
        """execution: of the service. record: of the journal, if this device has begun it before."""
        self.id: str = execution["jobId"]
        self.execution: int = execution["executionNumber"]
        self.document: "Any" = execution.get("jobDocument")
        self.resumed = record is not None
        self.data: "dict[str, Any]" = record["data"] if record else {}
        self.agent = runner.agent
        self._runner = runner

    async def progress(self, percent: "int | None" = None, **details: "Any") -> bool:
        """Report IN_PROGRESS with `details` as statusDetails (they replace the earlier ones).

        True: the service has accepted it. False: it could not be told within 30 s, which is no reason to stop working.
        If the service has ended the job: `revoked` becomes true and asyncio.CancelledError is raised.
        """
        if percent is not None:
            details["percent"] = percent
        runner = self._runner
        body = protocol.update("IN_PROGRESS", details, self.execution)
        start = clock.ticks()
        while clock.elapsed_ms(start) < _PROGRESS_MS:
            try:
                await asyncio.wait_for(self.agent.connected.wait(), 15)
                await runner.call(self.id + "/update", body)
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
            await asyncio.sleep(runner.backoff.next())
        return False

    def checkpoint(self, **data: "Any") -> None:
        """Merge JSON values into `data` and make them durable before returning. Raises JobFailed if it cannot."""
        merged = dict(self.data)
        merged.update(data)
        self._runner.keep(self, merged)
        self.data = merged

    def reset(self, reason: str) -> None:
        """Restart the device now. Does not return; a handler registered with resume=True is called again afterwards.

        Raises JobFailed if the port did not restart the device.
        """
        # The record has been in the journal since before the handler began.
        log.info("jobs", "%s: restart: %s", self.id, reason)
        self.agent.port.reset()
        raise JobFailed("the device did not restart")

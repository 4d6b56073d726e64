# SPDX-License-Identifier: Apache-2.0
"""What a job handler gets: facts about its job, and the ways to report, to remember and to restart."""

from edgeagent import log
from edgeagent.compat import Any
from edgeagent.errors import JobFailed

try:
    from typing import Any

    from edgeagent.jobs.protocol import Execution
    from edgeagent.jobs.runner import Runner
except ImportError:
    pass


class JobContext:
    """One execution in the hands of its handler.

    id, execution: job id and execution number. operation, document: what is asked for. resumed: True if this is the
    continuation after a reset. data: what `checkpoint` has stored. agent: the Agent.
    """

    def __init__(
        self, runner: "Runner", execution: "Execution", operation: str, data: "dict[str, Any]", resumed: bool
    ) -> None:
        self.id = execution.job_id
        self.execution = execution.number
        self.operation = operation
        self.document: "dict[str, Any]" = execution.document  # type: ignore[assignment]  # parse() has checked it
        self.resumed = resumed
        self.data = data
        self.agent = runner.agent
        self.revoked = False  # the service has ended the execution: nothing is to be reported any more
        self.ended = False
        self.outcome: "tuple[str, str, dict[str, Any]] | None" = None  # (status, reason, details), not kept yet
        self._runner = runner

    async def progress(self, percent: "int | None" = None, **details: "Any") -> bool:
        """Report IN_PROGRESS with `details` as statusDetails (they replace the earlier ones).

        True: the service has accepted it. False: it could not be told within 30 s, which is no reason to stop working.
        If the service has ended the job: `revoked` becomes true and asyncio.CancelledError is raised.
        """
        if percent is not None:
            details["percent"] = percent
        return await self._runner.progress(self, details)

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
        self._runner.keep(self, self.data, "resetting")
        log.info("jobs", "%s: restarting: %s", self.id, reason)
        self.agent.port.reset()
        raise JobFailed("the device did not restart")

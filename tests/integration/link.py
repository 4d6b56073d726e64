# SPDX-License-Identifier: Apache-2.0
"""The link between a board and its site: counts bytes, and breaks where a test wants it to."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import Any

from examples.demo.processes import FleetManager
from hil import link_faults

SESSION_BYTES = 24_000  # TLS handshake, job document, shadow and the rest of a session, and what was under way at a cut


class Link:
    """The proxy between the board and the broker, in a thread; counts what comes down."""

    def __init__(self, host: str, port: int) -> None:
        self.down = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.proxy = link_faults.LinkFaults(host, port)
        passing = link_faults._Connection._pass

        async def counted(connection: Any, data: bytes, writer: asyncio.StreamWriter) -> None:
            if connection is self.proxy._latest and writer.get_extra_info("sockname")[1] == self.port:
                self.down += len(data)
            await passing(connection, data, writer)

        link_faults._Connection._pass = counted  # type: ignore[assignment,method-assign]
        self._restore = passing
        self.port = asyncio.run_coroutine_threadsafe(self.proxy.start(), self._loop).result(10)

    def close(self) -> None:
        link_faults._Connection._pass = self._restore  # type: ignore[method-assign]
        asyncio.run_coroutine_threadsafe(self.proxy.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def through(self, fleet: FleetManager) -> FleetManager:
        """The site as a board behind this link sees it."""
        seen = copy.copy(fleet)
        seen.ready = {**fleet.ready, "mqtt_port": self.port}
        return seen

# SPDX-License-Identifier: Apache-2.0
"""What is desired of this device in one shadow: asked for at each connect, told as it changes, answered with what is.

The service sends a delta after every update that leaves one, also after a report that does not settle it
(aws-iot-protocol.md 9.3). One that says the same as the last is therefore not handled again before the next connect, or
a value that the device refuses would go round for ever. Loaded when an application declares a handler.
"""

import asyncio

from edgeagent import log
from edgeagent.compat import Any, exc_text
from edgeagent.errors import Refused, TransportError
from edgeagent.mqtt.backoff import Backoff
from edgeagent.shadow import Shadow


class Desired:
    """Hands what one shadow desires to one function; `run` is a service of the agent."""

    def __init__(self, agent: Any, name: "str | None", function: Any) -> None:
        """function: plain or async, of a dict; see Agent.desired."""
        self._agent = agent
        self._name = name
        self._function = function
        self._shadow: Any = None
        self._wake = asyncio.Event()
        self._fresh = False
        self._state: Any = None
        agent.attached.append(self._attached)

    def _attached(self) -> None:
        self._fresh = True
        self._wake.set()

    def _changed(self, state: Any, version: int) -> None:
        self._state = state
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff()
        handled = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._fresh:
                    self._fresh = False
                    handled = None
                    await self._ask()
                state = self._state
                if state and state != handled:
                    handled = state
                    result = self._function(state)
                    if hasattr(result, "send"):
                        result = await result
                    if isinstance(result, dict):
                        await self._shadow.update_reported(result)
                backoff.reset()
            except TransportError:
                if self._agent.connected.is_set():  # else the next session asks anew
                    await asyncio.sleep(backoff.next())
                    self._attached()
            except Refused as error:
                log.warning("shadow", "%s: %s", self._name or "classic", error)
            except Exception as error:  # the application's function; the next change is handled all the same
                log.error("shadow", "%s: %s", self._name or "classic", exc_text(error))

    async def _ask(self) -> None:
        """What was missed: deltas are not kept for a device that is not connected."""
        agent = self._agent
        shadow = self._shadow
        if not shadow:
            shadow = self._shadow = Shadow(agent.requests, agent.thing_name, self._name)
            shadow.on_delta(self._changed)
        await shadow.subscribe()
        document = await shadow.get()
        state = document["state"].get("delta") if document else None
        self._state = state if isinstance(state, dict) else None

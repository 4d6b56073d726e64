# SPDX-License-Identifier: Apache-2.0
"""MicroPython on the ESP32 family.

Not run on hardware yet: it is held to the port contract on the unix port with stand-ins for `network`, `esp32`,
`machine` and `ntptime`. Open until a board answers: error numbers of lwIP (118, 119, -202 …) appear as plain numbers in
reasons, and how long an interface takes to come up after a brown-out.

Wi-Fi, Ethernet or PPP is brought up by the board's boot code; this port waits for any of them.
"""

import asyncio

import esp32
import machine
import network

from edgeagent import clock, compat
from edgeagent.errors import TransportError
from edgeagent.ports.micropython import MicroPythonPort

try:
    from typing import Any
except ImportError:
    pass

# No certificate of a fleet is older: a clock before this is unset, and TLS would refuse every server.
_FLOOR = 1767225600  # 2026-01-01
_NETWORK_S = 20


class Esp32Port(MicroPythonPort):
    """See base.py. `interfaces`: objects with isconnected(); default: the Wi-Fi station, and any LAN or PPP added."""

    name = "esp32"
    machine = machine

    def __init__(self, config: "Any" = None) -> None:
        MicroPythonPort.__init__(self, config)
        self.interfaces = [network.WLAN(getattr(network, "STA_IF", 0))]

    def memory(self) -> "dict[str, int]":
        found = MicroPythonPort.memory(self)
        # TLS and Wi-Fi live in the IDF heap; its largest block decides whether a handshake succeeds.
        regions = esp32.idf_heap_info(esp32.HEAP_DATA)
        found["idf_free"] = sum([region[1] for region in regions])
        found["idf_largest"] = max([region[2] for region in regions])
        return found

    async def ensure_network(self) -> None:
        """Wait until an interface is up and the clock is set. Raises TransportError after 20 s."""
        start = clock.ticks()
        while not [1 for interface in self.interfaces if interface.isconnected()]:
            if clock.elapsed_ms(start) > _NETWORK_S * 1000:
                raise TransportError("no network within %d s" % _NETWORK_S)
            await asyncio.sleep(0.2)
        if clock.now() < _FLOOR:
            import ntptime

            try:
                ntptime.settime()  # blocks for at most its own time-out, 1 s
            except (OSError, OverflowError) as error:
                raise TransportError("clock is not set, NTP: " + compat.exc_text(error)) from None
            if clock.now() < _FLOOR:
                raise TransportError("NTP gave a time before 2026")

    async def open_stream(self, host: str, port: int, server_hostname: str, ca: str, cert: str, key: str) -> "Any":
        await self.ensure_network()
        return await MicroPythonPort.open_stream(self, host, port, server_hostname, ca, cert, key)

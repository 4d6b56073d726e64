# SPDX-License-Identifier: Apache-2.0
"""MicroPython on the ESP32 family.

Not run on hardware yet: it is held to the port contract on the unix port with stand-ins for `esp32`, `machine` and
`ntptime`. Open until a board answers: error numbers of lwIP (118, 119, -202 …) appear as plain numbers in reasons.

Wi-Fi, Ethernet or PPP is brought up by the board's boot code. While none is up, connecting fails and the agent's
back-off is the wait.
"""

import sys

import esp32

from edgeagent import clock, compat
from edgeagent.compat import Any, const
from edgeagent.errors import TransportError
from edgeagent.ports.micropython import MicroPythonPort

# No certificate of a fleet is older: a clock before this is unset, and TLS would refuse every server.
_FLOOR = const(1767225600)  # 2026-01-01


class Esp32Port(MicroPythonPort):
    """See base.py."""

    name = "esp32"
    board = sys.implementation._build
    chip = sys.implementation._machine.split(" ")[-1]  # "Generic ESP32 module with ESP32"

    def memory(self) -> "dict[str, int]":
        found = MicroPythonPort.memory(self)
        # TLS and Wi-Fi live in the IDF heap; its largest block decides whether a handshake succeeds.
        free = largest = 0
        for region in esp32.idf_heap_info(esp32.HEAP_DATA):
            free += region[1]
            largest = max(largest, region[2])
        found["idf_free"] = free
        found["idf_largest"] = largest
        return found

    async def open_stream(self, host: str, port: int, server_hostname: str, ca: str, cert: str, key: str) -> Any:
        """Sets the clock first, if it is not set."""
        if clock.now() < _FLOOR:
            import ntptime

            try:
                ntptime.settime()  # blocks for at most its own time-out, 1 s
            except (OSError, OverflowError) as error:
                raise TransportError("clock is not set, NTP: " + compat.exc_text(error)) from None
        return await MicroPythonPort.open_stream(self, host, port, server_hostname, ca, cert, key)

# SPDX-License-Identifier: Apache-2.0
"""MicroPython on the ESP32 family.

Not run on hardware yet: it is held to the port contract on the virtual board with the chip's epoch, floats, `esp32` and
`ntptime`. Open until a board answers: error numbers of lwIP (118, 119, -202 …) appear as plain numbers in reasons.

Wi-Fi, Ethernet or PPP is brought up by the board's boot code. While none is up, connecting fails and the agent's
back-off is the wait.
"""

import sys

import esp32

from edgeagent.compat import Any
from edgeagent.ports.micropython import MicroPythonPort


class Esp32Port(MicroPythonPort):
    """See base.py."""

    name = "esp32"
    board = sys.implementation._build
    chip = sys.implementation._machine.split(" ")[-1]  # "Generic ESP32 module with ESP32"

    def facts(self) -> "dict[str, Any]":
        found = MicroPythonPort.facts(self)
        # Whether there is a second place for firmware (otadata is data, subtype 0).
        found["partitions"] = "ota" if esp32.Partition.find(1, 0) else "single"
        return found

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

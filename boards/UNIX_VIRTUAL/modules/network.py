# SPDX-License-Identifier: Apache-2.0
"""`network` of the virtual board: a Wi-Fi station whose link is the host's loopback, up once `connect` was called and
while there is a radio (VirtualBoard.wifi).

When the radio is lost, `isconnected` says so, and when it is back the station has joined again, as the esp32 and rp2
drivers do by themselves. Packets are not lost by it: that is the part of a link-fault proxy (hil/link_faults.py).
Not modelled: scans, access-point mode.
"""

import machine

STA_IF = 0
AP_IF = 1


class WLAN:
    IF_STA = STA_IF
    IF_AP = AP_IF
    _active = False
    _connected = False

    def __init__(self, interface=STA_IF):
        if interface != STA_IF:
            raise ValueError("only the station interface exists")

    def active(self, value=None):
        if value is None:
            return WLAN._active
        WLAN._active = bool(value)
        if not value:
            WLAN._connected = False
        return WLAN._active

    def connect(self, ssid=None, key=None):
        if not WLAN._active:
            raise OSError("Wifi Not Started")
        WLAN._connected = True

    def disconnect(self):
        WLAN._connected = False

    def isconnected(self):
        return WLAN._connected and machine._radio()

    def status(self, what=None):
        if what == "rssi":
            return -55
        return 1010 if self.isconnected() else 201 if WLAN._connected else 1000  # STAT_GOT_IP, NO_AP_FOUND, IDLE

    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

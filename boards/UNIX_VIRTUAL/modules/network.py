# SPDX-License-Identifier: Apache-2.0
"""`network` of the virtual board: a Wi-Fi station whose link is the host's loopback and is up once `connect` is called.

Models the calls of network.WLAN that the agent uses. Not modelled yet: drops, scans, access-point mode.
"""

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
        return WLAN._connected

    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

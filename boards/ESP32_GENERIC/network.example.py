# SPDX-License-Identifier: Apache-2.0
# Copy to the board as /lib/wifi.py and import it first in your application: edgeagent does not bring an interface up,
# it keeps trying to connect until one is. Stations keep reconnecting by themselves once they were told to. When no
# application runs, the bare agent imports it.
import network

SSID = "…"
PASSWORD = "…"

station = network.WLAN(network.STA_IF)
station.active(True)
if not station.isconnected():
    station.connect(SSID, PASSWORD)

# SPDX-License-Identifier: Apache-2.0
# Copy to the board as /wifi.py and import it first in your application: edgeagent does not bring an interface up, it
# keeps trying to connect until one is. Stations keep reconnecting by themselves once they were told to.
import network

SSID = "…"
PASSWORD = "…"

station = network.WLAN(network.STA_IF)
station.active(True)
if not station.isconnected():
    station.connect(SSID, PASSWORD)

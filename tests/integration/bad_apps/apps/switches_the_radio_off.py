# SPDX-License-Identifier: Apache-2.0
"""Switches Wi-Fi off behind the agent's back.

expects: not confirmed within 2 s, no connection
"""

import network

from edgeagent import Agent


def main():
    network.WLAN(network.STA_IF).active(False)
    Agent.from_file().run()

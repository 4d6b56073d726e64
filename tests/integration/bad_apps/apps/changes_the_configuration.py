# SPDX-License-Identifier: Apache-2.0
"""Writes its own settings into agent.json: the agent does not find its service any more.

expects: not confirmed
"""

import json

from edgeagent import Agent


def main():
    with open("/agent.json") as f:
        settings = json.load(f)
    settings["ca"] = "/certs/other.der"
    with open("/agent.json", "w") as f:
        json.dump(settings, f)
    Agent.from_file().run()

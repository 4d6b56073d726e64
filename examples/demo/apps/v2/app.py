# SPDX-License-Identifier: Apache-2.0
"""The application of the demo, version 2: knows the oil temperature too."""

from edgeagent import Agent, compat

VERSION = "2.0.0"
agent = Agent.from_file(version=VERSION)
COUNTER = agent.port.state_dir + "/engine"


def count_start():
    starts = int(compat.read_file(COUNTER, 16) or b"0") + 1
    compat.write_atomic(COUNTER, b"%d" % starts)
    return starts


starts = count_start()
agent.attribute("engineStarts", lambda: starts)
agent.attribute("oilTemperature", lambda: 90)


def main():
    agent.run()

# SPDX-License-Identifier: Apache-2.0
"""A Raspberry Pi service: makes its disk searchable in the fleet and puts its own files into diagnostics bundles."""

import os
import platform
from pathlib import Path

from edgeagent import Agent

VERSION = "1.0.0"
agent = Agent.from_file(version=VERSION)
PLACE = agent.port.state_dir


def disk_free():
    """In MiB, so that it does not change (and is not reported) at every log line."""
    status = os.statvfs(PLACE)
    return status.f_bavail * status.f_frsize >> 20


# Found with: shadow.reported.diskFree < 500 AND shadow.reported.kernel:6.*
agent.attribute("diskFree", disk_free)
agent.attribute("kernel", platform.release())


@agent.health_check
def room_to_work():
    return disk_free() > 10, f"{disk_free()} MiB free"


@agent.diagnostics("mounts")
def mounts():
    with Path("/proc/mounts").open() as lines:
        yield from lines


def main():
    agent.run()

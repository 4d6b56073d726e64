# SPDX-License-Identifier: Apache-2.0
"""Runs an event loop of its own without the agent, and feeds the watchdog.

expects: did not end
"""

import asyncio

import machine


async def work():
    dog = machine.WDT(timeout=1000)
    while True:
        dog.feed()
        await asyncio.sleep(0.05)


def main():
    asyncio.run(work())

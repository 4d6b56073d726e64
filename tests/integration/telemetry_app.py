# SPDX-License-Identifier: Apache-2.0
"""A Linux device that measures as fast as it is told: `telemetry_app.py AGENT_JSON FIRST [COUNT]`.

Sends the numbers from FIRST on as series "n", and prints `durable N` when all below N are. With COUNT it ends producing
after so many, and only delivers.
"""

import asyncio
import sys

from edgeagent import Agent

agent = Agent.from_file(sys.argv[1])
first = int(sys.argv[2])
last = first + int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 40


async def produce() -> None:
    number = first
    while number < last:
        for _ in range(7):
            agent.telemetry("n", number)
            number += 1
        if number % 3 == 0 and agent.part("telemetry").box.flush():
            print(f"durable {number}", flush=True)
        await asyncio.sleep(0.002)
    agent.part("telemetry").close()
    print(f"durable {number}", flush=True)


async def main() -> None:
    await asyncio.gather(agent.start(), produce())


asyncio.run(main())

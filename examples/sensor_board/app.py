# SPDX-License-Identifier: Apache-2.0
"""A sensor board: sends its temperature, lets the operator set how often, and says when the sensor is broken.

For boards with MicroPython (RPI_PICO_W as it is: input 4 is the chip's own thermometer).
"""

import asyncio

import machine

from edgeagent import Agent

VERSION = "1.0.0"
agent = Agent.from_file(version=VERSION)
sensor = machine.ADC(4)
seconds = [10]  # between two samples


def celsius():
    """RP2040 data sheet, 4.9.5: 706 mV at 27 degrees, 1.721 mV less for each degree more."""
    return 27 - (sensor.read_u16() * 3.3 / 65535 - 0.706) / 0.001721


# Half a degree must pass between two records; what has not changed costs no flash and no traffic.
agent.series("temperature", deadband=0.5)


@agent.desired()
def settings(state):
    """The shadow's desired sampleSeconds, kept within reason; what is returned is reported."""
    if "sampleSeconds" in state:
        seconds[0] = min(max(int(state["sampleSeconds"]), 1), 3600)
    return {"sampleSeconds": seconds[0]}


@agent.health_check
def sensor_answers():
    """An update whose driver reads nonsense is rolled back."""
    return -40 < celsius() < 85, f"{celsius():.0f} degrees"


async def sample():
    while True:
        agent.telemetry("temperature", round(celsius(), 1))
        await asyncio.sleep(seconds[0])


async def work():
    task = asyncio.create_task(sample())
    try:
        await agent.start()
    finally:
        task.cancel()


def main():
    asyncio.run(work())

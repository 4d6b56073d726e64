# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC110 - a condition is awaited turn by turn of the loop: the same on both runtimes
"""What an application is told of a shadow's desired state, over lost links and refusals."""

import asyncio
import json
import unittest

from edgeagent.desired import Desired
from edgeagent.errors import Refused, TransportError
from tests.portable.wire import play


class Device:
    """Stands for the agent, its requests and its client: keeps one shadow as the service does (9.3)."""

    thing_name = "t"

    def __init__(self, desired):
        self.requests = self.client = self
        self.connected = asyncio.Event()
        self.connected.set()
        self.attached = []
        self.desired = dict(desired)
        self.reported = {}
        self.version = 1
        self.handlers = {}
        self.failures = []
        self.updates = 0

    def delta(self):
        found = {}
        for name in self.desired:
            if self.reported.get(name) != self.desired[name]:
                found[name] = self.desired[name]
        return found

    async def subscribe(self, filters):
        self.filters = filters

    def on(self, topic, handler):
        self.handlers[topic] = handler

    async def call(self, topic, body):
        if self.failures:
            raise self.failures.pop(0)
        if topic.endswith("get"):
            return {"state": {"desired": self.desired, "delta": self.delta()}, "version": self.version}
        self.updates += 1
        self.reported.update(body["state"]["reported"])
        self.tell()
        return {}

    def want(self, **values):
        self.desired.update(values)
        self.tell()

    def tell(self):
        self.version += 1
        if self.delta():
            body = json.dumps({"state": self.delta(), "version": self.version}).encode()
            self.handlers["$aws/things/t/shadow/name/n/update/delta"]("", body)

    def connect(self):
        for function in self.attached:
            function()


def follow(device, function, story):
    """Run the service while `story` plays."""

    async def both():
        task = asyncio.create_task(Desired(device, "n", function).run())
        device.connect()
        try:
            await asyncio.wait_for(story(), 20)
        finally:
            task.cancel()

    play(both())


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


async def quiet():
    for _ in range(50):
        await asyncio.sleep(0)


class Following(unittest.TestCase):
    def setUp(self):
        self.seen = []

    def take(self, state):
        self.seen.append(state)
        return state

    def test_what_is_desired_at_connect_is_handled_and_reported(self):
        device = Device({"rate": 5})

        async def story():
            await until(lambda: device.reported == {"rate": 5})

        follow(device, self.take, story)
        self.assertEqual(self.seen, [{"rate": 5}])

    def test_a_change_is_handled_when_it_comes(self):
        device = Device({})

        async def story():
            await quiet()
            device.want(rate=7)
            await until(lambda: device.reported == {"rate": 7})

        follow(device, self.take, story)
        self.assertEqual(self.seen, [{"rate": 7}])

    def test_what_changed_while_the_link_was_down_is_asked_for(self):
        device = Device({})

        async def story():
            await quiet()
            device.desired["rate"] = 8  # nobody was told
            device.version += 1
            device.connect()
            await until(lambda: device.reported == {"rate": 8})

        follow(device, self.take, story)

    def test_a_value_that_the_device_refuses_does_not_go_round(self):
        device = Device({"rate": -1})

        def refuse(state):
            self.seen.append(state)
            return {"rate": 1}

        async def story():
            await until(lambda: self.seen)
            await quiet()
            self.assertEqual(len(self.seen), 1)
            device.want(rate=-2)
            await until(lambda: len(self.seen) == 2)

        follow(device, refuse, story)
        self.assertEqual(device.updates, 2)

    def test_calls_do_not_overlap_and_the_last_state_wins(self):
        device = Device({})
        gate = asyncio.Event()

        async def slow(state):
            self.seen.append(state["rate"])
            await gate.wait()
            return state

        async def story():
            await quiet()
            device.want(rate=1)
            await until(lambda: self.seen)
            device.want(rate=2)
            device.want(rate=3)
            await quiet()
            self.assertEqual(self.seen, [1])
            gate.set()
            await until(lambda: device.reported == {"rate": 3})

        follow(device, slow, story)
        self.assertEqual(self.seen, [1, 3])

    def test_a_failing_function_does_not_end_the_service(self):
        device = Device({"rate": 1})

        def fail(state):
            self.seen.append(state)
            if len(self.seen) == 1:
                raise ValueError("broken")
            return state

        async def story():
            await until(lambda: self.seen)
            device.want(rate=2)
            await until(lambda: device.reported == {"rate": 2})

        follow(device, fail, story)

    def test_an_answer_that_got_lost_is_asked_for_again(self):
        device = Device({"rate": 1})
        device.failures = [TransportError("no answer")]

        async def story():
            await until(lambda: device.reported == {"rate": 1})

        follow(device, self.take, story)

    def test_a_refusal_waits_for_the_next_connect(self):
        device = Device({"rate": 1})
        device.failures = [Refused("403", "no")]

        async def story():
            await quiet()
            self.assertEqual(self.seen, [])
            device.connect()
            await until(lambda: device.reported == {"rate": 1})

        follow(device, self.take, story)


if __name__ == "__main__":
    unittest.main()

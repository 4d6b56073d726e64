# SPDX-License-Identifier: Apache-2.0
"""The Jobs service in memory, by aws-iot-protocol.md sections 3.5 to 3.9, and a device that can lose power.

Used by tests on both runtimes; the tests in tests/device run the same agent against the real broker.
"""

import asyncio
import binascii
import json
import os
import unittest

from edgeagent import clock, compat, log
from edgeagent.errors import Refused, TransportError
from edgeagent.jobs import journal
from edgeagent.jobs.registry import Handlers
from edgeagent.jobs.runner import Runner
from edgeagent.mqtt import backoff

NEXT = backoff.Backoff.next
TERMINAL = ("SUCCEEDED", "FAILED", "REJECTED", "CANCELED", "TIMED_OUT")
FOLDER = "job-test-" + binascii.hexlify(os.urandom(6)).decode()  # test processes share a working folder


class PowerCut(SystemExit):
    """Ends the whole event loop on both runtimes, past every `except Exception`."""


class Service:
    """The executions of one thing, in queue order; survives what the device does not."""

    def __init__(self):
        self.executions = []  # dicts: jobId, executionNumber, status, versionNumber, jobDocument, statusDetails
        self.history = []  # (job id, status) of every accepted change by the device
        self.refusals = {}  # job id -> list of codes to answer its next updates with
        self.timers = []  # stepTimeoutInMinutes of every update that had one
        self.on_change = None  # called when the front execution may have changed

    def add(self, job_id, document, number=1):
        self.executions.append(
            {
                "jobId": job_id,
                "executionNumber": number,
                "status": "QUEUED",
                "versionNumber": 1,
                "jobDocument": document,
                "statusDetails": {},
                "timer": None,  # minutes of a running step timer
            }
        )
        self._changed()

    def cancel(self, job_id, status="CANCELED"):
        self.find(job_id)["status"] = status
        self._changed()

    def find(self, job_id, number=None):
        for execution in self.executions:
            if execution["jobId"] == job_id and number in (None, execution["executionNumber"]):
                return execution
        raise Refused("ResourceNotFound", "Job %s not found" % job_id)

    def status(self, job_id):
        return self.find(job_id)["status"]

    def details(self, job_id):
        return self.find(job_id)["statusDetails"]

    def terminal(self, job_id):
        """Terminal statuses that the device reported and the service took."""
        return [status for name, status in self.history if name == job_id and status in TERMINAL]

    def over(self):
        return all(execution["status"] in TERMINAL for execution in self.executions)

    def _changed(self):
        if self.on_change:
            self.on_change()

    def _front(self):
        for wanted in ("IN_PROGRESS", "QUEUED"):
            for execution in self.executions:
                if execution["status"] == wanted:
                    return execution
        return None

    def answer(self, rest, body):
        """The reply to a request on `$aws/things/{thing}/jobs/{rest}`. Raises Refused."""
        if rest == "start-next":
            front = self._front()
            if front is not None and front["status"] == "QUEUED":
                front["status"] = "IN_PROGRESS"
                front["versionNumber"] += 1
            return self._data(front, True)
        name, verb = rest.split("/")
        if verb == "get":
            with_document = body.get("includeJobDocument", True)
            if name == "$next":
                return self._data(self._front(), with_document)
            execution = self.find(name, body.get("executionNumber"))
            if execution["status"] in TERMINAL:
                raise Refused("TerminalStateReached", "not IN_PROGRESS or QUEUED")
            return self._data(execution, with_document)
        return self._update(name, body)

    def _data(self, execution, with_document):
        if execution is None:
            return {"timestamp": 1}
        data = dict(execution)
        data.pop("timer")
        if not with_document:
            data.pop("jobDocument")
        if not data["statusDetails"]:
            data.pop("statusDetails")
        # Through JSON, as on the wire.
        return json.loads(json.dumps({"timestamp": 1, "execution": data}))

    def _update(self, name, body):
        if self.refusals.get(name):
            raise Refused(self.refusals[name].pop(0), "planned")
        for key in body.get("statusDetails", {}):
            value = body["statusDetails"][key]
            if not isinstance(value, str) or not 0 < len(value) <= 1024:
                raise Refused("InvalidRequest", key)
        execution = self.find(name, body.get("executionNumber"))
        if execution["status"] in TERMINAL:
            state = {"executionState": {"status": execution["status"]}}
            raise Refused("InvalidStateTransition", "is " + execution["status"], state)
        execution["status"] = body["status"]
        execution["versionNumber"] += 1
        if "statusDetails" in body:
            execution["statusDetails"] = body["statusDetails"]
        minutes = body.get("stepTimeoutInMinutes")
        if minutes is not None:
            if minutes != -1 and not 1 <= minutes <= 10080:
                raise Refused("InvalidRequest", "stepTimeoutInMinutes")
            execution["timer"] = None if minutes == -1 else minutes
            self.timers.append(minutes)
        self.history.append((name, body["status"]))
        if body["status"] in TERMINAL:
            self._changed()
        return {"timestamp": 1}


class Port:
    """A machine whose boots are numbered; reset() ends the loop."""

    slots_dir = FOLDER + "/slots"
    state_dir = FOLDER
    resets = True

    def __init__(self, boot):
        self.boot = boot

    def boot_id(self):
        return "boot-%d" % self.boot

    def reset_cause(self):
        return "watchdog"

    def memory(self):
        return {"free": 1000}

    def reset(self):
        if Port.resets:
            raise PowerCut("reset")


class Attributes:
    facts = {"engineStarts": 7}

    def full(self):
        return dict(self.facts)


class Device:
    """What the runner needs of an Agent, on a link to `service` that tests can break. Also its own client."""

    thing_name = "t"
    config_path = None
    config = None

    def __init__(self, service, boot=1):
        self.service = service
        self.port = Port(boot)
        self.handlers = Handlers()
        self.attributes = Attributes()
        self.counters = {}
        self.collectors = []
        self.connected = asyncio.Event()
        self.requests = self.client = self
        self.oversized = []
        self.lose_replies = 0  # of the next requests the service takes, so many answers are lost
        self.too_large = False  # the next start-next answer does not fit into the receive cap
        self.calls = []
        self.published = []
        self._notified = None
        self.runner = Runner(self)

    def facts(self):
        return {"board": "TEST"}

    # client and requests

    def on(self, topic_filter, handler):
        if topic_filter.endswith("notify-next"):
            self._notified = handler
            self.service.on_change = lambda: self.connected.is_set() and handler(topic_filter, b"{}")

    async def subscribe(self, filters):
        self.filters = filters

    async def publish(self, topic, payload, qos=1):
        await asyncio.sleep(0)
        if not self.connected.is_set():
            raise TransportError("down")
        self.published.append((topic, bytes(payload)))

    async def call(self, topic, body):
        rest = topic[len("$aws/things/t/jobs/") :]
        self.calls.append(rest)
        await asyncio.sleep(0)
        if not self.connected.is_set():
            raise TransportError("down")
        if self.too_large and body.get("includeJobDocument", True) and not rest.endswith("/update"):
            self.service.answer(rest, body)
            raise Refused("ReplyTooLarge", "too large")
        answer = self.service.answer(rest, body)
        if self.lose_replies:
            self.lose_replies -= 1
            raise TransportError("lost")
        return answer

    # what tests do

    async def connect(self):
        await self.runner.attach()
        self.connected.set()

    async def until(self, condition):
        start = clock.ticks()
        while not condition():
            if clock.elapsed_ms(start) > 10000:
                raise AssertionError("waited too long; calls: %s, history: %s" % (self.calls, self.service.history))
            await asyncio.sleep(0.001)

    async def idle(self):
        """Until the service has all terminal statuses and the journal is empty."""
        await self.until(lambda: self.service.over() and journal_is_empty())


def journal_is_empty():
    return not compat.exists(FOLDER + "/job.json")


def wipe():
    compat.remove_tree(FOLDER)


def live(device, scenario):
    """Run the runner and `scenario(device)` on a connected device; True if it ended by a power cut."""

    async def main():
        await device.connect()
        task = asyncio.create_task(device.runner.run())
        try:
            await scenario(device)
        finally:
            task.cancel()

    asyncio.new_event_loop()
    try:
        asyncio.run(main())
    except PowerCut:
        return True
    return False


class Fuse:
    """Cuts the power at one of the file operations of the journal: before it, in the middle of a write, or after it."""

    def __init__(self, at, mode):
        self.at = at
        self.mode = mode
        self.count = 0
        self.dead = False

    def __enter__(self):
        fuse = self

        class File:
            def __init__(self, real):
                self.real = real

            def write(self, data):
                half = bytes(data)[: len(data) // 2]
                fuse.step(lambda: self.real.write(data), lambda: self.real.write(half))

            def flush(self):
                self.real.flush()

            def fileno(self):
                return self.real.fileno()

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.real.close()

            def read(self):
                return self.real.read()

        class Os:
            stat = os.stat

            def __getattr__(self, name):
                return getattr(os, name)

            def rename(self, *arguments):
                fuse.step(lambda: os.rename(*arguments))

            def remove(self, *arguments):
                fuse.step(lambda: os.remove(*arguments))

            def mkdir(self, *arguments):
                fuse.step(lambda: os.mkdir(*arguments))

        def opened(path, mode):
            if "w" not in mode:
                return File(open(path, mode))
            box = []
            fuse.step(lambda: box.append(open(path, mode)))
            return File(box[0])

        compat.os = journal.os = Os()
        compat.open = opened
        return self

    def __exit__(self, *_):
        compat.os = journal.os = os
        compat.open = open
        return False

    def step(self, act, half=None):
        if self.dead:
            raise PowerCut("already dead")
        self.count += 1
        if self.count != self.at:
            return act()
        self.dead = True
        if self.mode == "torn" and half:
            half()
        elif self.mode == "after":
            act()
        raise PowerCut("power cut")


class Quick(unittest.TestCase):
    """A service, an empty flash, no log, and retries that wait for milliseconds."""

    def setUp(self):
        wipe()
        log.configure(log.INFO, lambda line: None)
        backoff.Backoff.next = lambda self: 0.001
        Port.resets = True
        self.service = Service()

    def tearDown(self):
        backoff.Backoff.next = NEXT
        log.configure(log.INFO, print)
        wipe()

# SPDX-License-Identifier: Apache-2.0
"""Runs on MicroPython: power cuts at every flash operation of a life with the outbox, on the real littlefs; and what
that life costs.

    micropython outbox_powercut_program.py sweep SCENARIO STEP | storm SCENARIO SEEDS | wear
Prints one line of JSON. A case: cut the supply at operation k (before it, in the middle of it, after it), switch on
again, let the device finish, and ask a receiver that discards doubles: it has every record that was durable, in order.
"""

import gc
import json
import sys
import time

from edgeagent import compat, log
from edgeagent.outbox import Outbox
from tests.device.powercut_program import MODES, Device, Flash, vfs

PATH = "/flash/state/outbox"


class Cut(Exception):
    """The device is off."""


class Careless(Outbox):
    """Negative control: sends numbers that nothing sets apart, and forgets what was acknowledged."""

    def _save(self):
        return True


class Life:
    """What happens outside of the device outlives its cuts: the receiver, and what the application was promised."""

    def __init__(self, kind, max_bytes, ballast, size):
        self.kind = kind
        self.max_bytes = max_bytes
        self.size = size
        self.appended = 0
        self.dropped = 0
        self.durable = []
        self.received = []
        self.highest = {}
        self.phase = 0

    def on(self, device):
        """One power-on, until the cut or the end of the script."""
        self.device = device
        box = self.box = self.kind(PATH, self.max_bytes, 100000, 512)
        base = box.dropped
        self.volatile = []
        try:
            while self.phase < 6:
                self.phase += 1
                self.script(box, self.phase)
            self.deliver(box, 1000)
        finally:
            self.dropped += box.dropped - base

    def script(self, box, phase):
        if phase == 1:
            self.append(box, 30)
            self.flush(box)
        elif phase == 2:
            self.deliver(box, 1)
            self.append(box, 5)
            self.flush(box)
        elif phase == 3:
            # In flight while it is flushed.
            self.append(box, 3)
            taken = self.take(box)
            self.append(box, 40)
            self.flush(box)
            if taken:
                self.ack(box, taken)
        elif phase == 4:
            self.append(box, 150)
            self.flush(box)
            self.deliver(box, 3)
        elif phase == 5:
            self.deliver(box, 1000)
            self.append(box, 4)
            self.deliver(box, 1)
        else:
            self.append(box, 20)
            self.flush(box)

    def alive(self):
        if self.device.flash.dead:
            raise Cut

    def append(self, box, count):
        for _ in range(count):
            self.appended += 1
            self.volatile.append(self.appended)
            text = b"[%d,1234567" % self.appended
            box.append(text + b"0" * (self.size - len(text)) + b"]")
            self.alive()
            self.note(box)

    def note(self, box):
        if not box.buffered:
            self.durable += self.volatile
            self.volatile = []

    def flush(self, box):
        done = box.flush()
        self.alive()
        if not done:
            raise AssertionError("not stored, with power on")
        self.note(box)

    def take(self, box):
        taken = box.take(900)
        self.alive()
        if taken:
            number = taken[0]
            for record in json.loads(b"[" + taken[2] + b"]"):
                if number > self.highest.get(box.id, -1):
                    self.highest[box.id] = number
                    self.received.append(record[0])
                number += 1
        return taken

    def ack(self, box, taken):
        box.ack(taken[0] + taken[1])
        self.alive()

    def deliver(self, box, messages):
        while messages:
            messages -= 1
            taken = self.take(box)
            if not taken:
                return
            self.ack(box, taken)

    def judge(self):
        if self.received != sorted(set(self.received)):
            raise AssertionError(f"twice or out of order: {self.received}")
        missing = set(self.durable) - set(self.received)
        if len(missing) > self.dropped:
            raise AssertionError(f"lost {sorted(missing)[:10]}, {self.dropped} dropped")
        if len(self.highest) != 1:
            raise AssertionError(f"{len(self.highest)} numberings")


SCENARIOS = {
    # class, bound in bytes, blocks of other files, bytes of a record
    "life": (Outbox, 131072, 0, 24),
    "tight": (Outbox, 16384, 0, 130),
    "full": (Outbox, 131072, 37, 150),  # the flash is full before the queue is
    "careless": (Careless, 131072, 0, 24),
}


def factory(ballast):
    flash = Flash(None)
    vfs.VfsLfs2.mkfs(flash)
    with Device(flash.data):
        compat.make_dirs(PATH)
        with open("/flash/ballast", "wb") as f:
            for _ in range(ballast):
                f.write(b"x" * 4096)
    return flash.data


def run(device, life):
    """True if it came to the end, False if it was cut."""
    try:
        with device:
            life.on(device)
        return True
    except Exception as error:
        if not device.flash.dead:  # what a dead device's program makes of failing reads does not happen
            raise error
        return False
    finally:
        gc.collect()


def sweep(arguments, step):
    base = factory(arguments[2])
    clean = Device(bytearray(base))
    life = Life(*arguments)
    run(clean, life)
    life.judge()
    result = {"operations": clean.flash.operations, "cases": 0, "bad": [], "dropped": life.dropped}
    for mode in MODES:
        for cut in range(0, clean.flash.operations, step):
            result["cases"] += 1
            life = Life(*arguments)
            try:
                first = Device(bytearray(base), cut, mode)
                if run(first, life):
                    raise AssertionError("not cut")
                run(Device(first.flash.data), life)
                life.judge()
            except Exception as error:
                result["bad"].append(f"{mode} {cut}: {compat.exc_text(error)}")
    return result


def storm(arguments, seeds):
    """Cuts at pseudo-random operations of up to eight power-ons in a row; then the supply holds."""
    result = {"cases": 0, "bad": [], "cuts": 0}
    base = factory(arguments[2])
    for seed in range(seeds):
        value = seed * 2654435761 + 12345
        data = bytearray(base)
        life = Life(*arguments)
        result["cases"] += 1
        try:
            for _ in range(8):
                value = (value * 1103515245 + 12345) & 0x7FFFFFFF
                device = Device(data, (value >> 8) % 60, MODES[(value >> 4) % 3])
                if run(device, life):
                    break
                result["cuts"] += 1
                data = device.flash.data
            run(Device(data), life)
            life.judge()
        except Exception as error:
            result["bad"].append(f"seed {seed}: {compat.exc_text(error)}")
    return result


class Counted(Flash):
    """Tells erases from programs."""

    erased = programmed = 0

    def writeblocks(self, block, buffer, offset=0):
        Counted.programmed += len(buffer)
        return Flash.writeblocks(self, block, buffer, offset)

    def ioctl(self, operation, argument):
        if operation == 6:
            Counted.erased += 1
        return Flash.ioctl(self, operation, argument)


def wear():
    """Costs of 1,000 records of 40 bytes, default settings: stored while offline; delivered then; delivered at once."""
    flash = Counted(None, 128)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    record = b'[1795445598,"temperature",21.625,1234567]'[:40]
    result = {}
    gc.collect()
    before = gc.mem_alloc()
    box = Outbox(PATH, 131072, 100000, 1024)
    gc.collect()
    result["ram"] = gc.mem_alloc() - before

    def measured(name, work):
        Counted.erased = Counted.programmed = 0
        start = time.ticks_us()
        work()
        spent = time.ticks_diff(time.ticks_us(), start)
        result[name] = {"erases": Counted.erased, "bytes": Counted.programmed, "per_second": 1000000000 // spent}

    def append():
        for _ in range(1000):
            box.append(record)
        box.flush()

    def deliver():
        while True:
            taken = box.take(2048 - 128)
            if not taken:
                break
            box.ack(taken[0] + taken[1])

    def online():
        for _ in range(1000):
            box.append(record)
            if box.buffered * 2 >= box.buffer:
                deliver()
        deliver()

    measured("append", append)
    gc.collect()
    result["ram_backlog"] = gc.mem_alloc() - before
    measured("deliver", deliver)
    measured("online", online)
    return result


def main():
    log._sink = lambda line: None
    if sys.argv[1] == "wear":
        print(json.dumps(wear()))
        return
    arguments = SCENARIOS[sys.argv[2]]
    found = (sweep if sys.argv[1] == "sweep" else storm)(arguments, int(sys.argv[3]))
    found["bad_count"] = len(found["bad"])
    found["bad"] = found["bad"][:10]
    print(json.dumps(found))


main()

# SPDX-License-Identifier: Apache-2.0
"""A life with the outbox, cut anywhere: scenarios outbox-life, outbox-tight and outbox-full; and what that life costs.

After a cut the device is switched on again and finishes; then a receiver that discards doubles is asked: it has every
record that was durable, in order. Run as a program it prints what the life costs, as one line of JSON.
"""

import gc
import json
import time

import vfs

from edgeagent import compat, log
from edgeagent.outbox import Outbox
from hil.cuts.board.device import Problem
from hil.cuts.board.flash import BLOCK, TEARS, Flash, number
from hil.cuts.board.storms import CUTS
from hil.cuts.board.sweep import sweep_all

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
            raise Problem("(d) not stored, with power on")
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
            raise Problem(f"(b) twice or out of order: {self.received}")
        missing = set(self.durable) - set(self.received)
        if len(missing) > self.dropped:
            raise Problem(f"(d) lost {sorted(missing)[:10]}, {self.dropped} dropped")
        if len(self.highest) != 1:
            raise Problem(f"(d) {len(self.highest)} numberings")


SCENARIOS = {
    # class, bound in bytes, blocks of other files, bytes of a record
    "life": (Outbox, 131072, 0, 24),
    "tight": (Outbox, 16384, 0, 130),
    "full": (Outbox, 131072, 37, 150),  # the flash is full before the queue is
    "careless": (Careless, 131072, 0, 24),
}


class Device:
    """One power-on of a device with this flash."""

    def __init__(self, data):
        self.flash = Flash(data)

    def __enter__(self):
        vfs.mount(vfs.VfsLfs2(self.flash), "/flash")
        return self

    def __exit__(self, *error):
        vfs.umount("/flash")


class Rig:
    """As sweep.Rig, for kinds "cut" and "storm"."""

    def __init__(self, name):
        self.name = name
        self.arguments = SCENARIOS[name.partition("-")[2]]
        flash = Flash(bytearray(b"\xff" * (48 * BLOCK)))
        vfs.VfsLfs2.mkfs(flash)
        with Device(flash.data):
            compat.make_dirs(PATH)
            with open("/flash/ballast", "wb") as f:
                for _ in range(self.arguments[2]):
                    f.write(b"x" * 4096)
        self.base = bytes(flash.data)
        clean = Device(bytearray(self.base))
        life = Life(*self.arguments)
        self.run(clean, life)
        life.judge()
        self.dropped = life.dropped
        self.log = range(clean.flash.count)
        self.judged = 0

    def run(self, device, life):
        """True if it came to the end, False if it was cut."""
        try:
            with device:
                life.on(device)
            return True
        except Exception:
            if not device.flash.dead:  # what a dead device's program makes of failing reads does not happen
                raise
            return False

    def play(self, case, result=None):
        """One case by its id without the scenario's name. Raises Problem, or whatever the outbox raises."""
        life = Life(*self.arguments)
        data = bytearray(self.base)
        for cut in range(1 if "." in case else CUTS):
            device = Device(data)
            device.flash.seed = "%s/%s/%d" % (self.name, case, cut)
            device.flash.fault_at = number(device.flash.seed + "k", 60)
            device.flash.fault = TEARS[number(device.flash.seed + "t", len(TEARS))]
            if "." in case:
                k, _, device.flash.fault = case.partition(".")
                device.flash.fault_at = int(k)
            if self.run(device, life):
                break
            if result:
                result.cuts += 1
        self.run(Device(data), life)
        life.judge()
        self.judged += 1

    def sweep(self, kind, part, parts, report, limit=None):
        if kind == "storm":
            cases = ["storm-%d" % seed for seed in range(part, parts)]
        else:
            cases = ["%d.%s" % (k, tear) for k in range(part, len(self.log), parts) for tear in TEARS]
        return sweep_all(self, cases, report, limit)


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
    flash = Counted(bytearray(b"\xff" * (128 * BLOCK)))
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


if __name__ == "__main__":
    log.configure(100)
    print(json.dumps(wear()))

# SPDX-License-Identifier: Apache-2.0
"""An ESP32 as its flash is seen by the bootloader and by esp32.Partition: which image runs, and what each call writes.

On a flash with readblocks, writeblocks and ioctl 6 of 4096-byte blocks, whose program only clears bits: each erase
and each program is one operation of it, in ESP-IDF's order, so that any of them can be cut or fail. Runs on MicroPython
and CPython. Not modelled: NVS (the agent does not use it), secure boot, flash encryption, anti-rollback eFuses, chip
revisions, what an image does when it runs (an image says so itself: `behaviour`).
Sources: ESP-IDF components/app_update/esp_ota_ops.c, bootloader_support (bootloader_utility.c); MicroPython
ports/esp32/esp32_partition.c, mphalport.c.
"""

from hil.esp32_image import CHIPS, VALIDATE_FAILED, EspError, describe, verify_image
from hil.esp32_tables import (
    ABORTED,
    APP,
    DATA,
    FACTORY,
    NEW,
    OTA_0,
    OTADATA,
    PENDING,
    TABLE_AT,
    TABLE_BYTES,
    TEST,
    UNDEFINED,
    VALID,
    Record,
    active,
    next_seq,
    read_table,
    record,
)

BLOCK = 4096
# esp_err_t, which MicroPython raises as OSError(-code), and the three that it maps to errno (mphalport.c).
FAIL, INVALID_ARG, INVALID_SIZE, NOT_FOUND = -1, 0x102, 0x104, 0x105
FLASH_OP_FAIL = 0x6001
ENOENT, EINVAL = 2, 22


class Chip:
    """As a module: `Partition`. running: entry of the table that runs since `power_on`, or None.

    flash: see above. rollback: CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE of bootloader and app, as in MicroPython's builds.
    """

    def __init__(self, flash: "object", chip: str = "esp32", rollback: bool = True) -> None:
        self.flash = flash
        self.id = CHIPS[chip]
        self.rollback = rollback
        self.running = None
        self.table = read_table(self.read(TABLE_AT, TABLE_BYTES))

        class Bound(Partition):
            chip = self

        self.Partition = Bound

    # flash, as esp_partition_* does it

    def read(self, at, size):
        data = bytearray(size)
        self.read_into(at, data)
        return data

    def read_into(self, at, buffer):
        if self.flash.readblocks(at // BLOCK, buffer, at % BLOCK):
            raise EspError(FLASH_OP_FAIL)

    def erase(self, at, size):
        for block in range(at // BLOCK, (at + size) // BLOCK):
            if self.flash.ioctl(6, block):
                raise EspError(FLASH_OP_FAIL)

    def program(self, at, data):
        view = memoryview(data)
        while view:
            size = BLOCK - at % BLOCK
            if self.flash.writeblocks(at // BLOCK, view[:size], at % BLOCK):
                raise EspError(FLASH_OP_FAIL)
            view = view[size:]
            at += size

    # partitions

    def find(self, kind, subtype=0xFF, label=None):
        return [
            entry
            for entry in self.table
            if entry[1] == kind and subtype in (0xFF, entry[2]) and label in (None, entry[0])
        ]

    def slots(self):
        """esp_ota_get_app_partition_count: entries of ota_0, ota_1, … without a gap."""
        found = []
        while len(found) < 16 and self.find(APP, OTA_0 + len(found)):
            found.append(self.find(APP, OTA_0 + len(found))[0])
        return found

    def verify(self, entry):
        return verify_image(lambda at, size: self.read(entry[3] + at, size), entry[4], self.id, entry[3])

    def behaviour(self, entry: "tuple[str, int, int, int, int]") -> str:
        return describe(self.read(entry[3], 112))[2]

    # otadata

    def records(self):
        """Both records. Raises EspError NOT_FOUND without otadata."""
        found = self.find(DATA, OTADATA)
        if not found:
            raise EspError(NOT_FOUND)
        return [Record(self.read(found[0][3] + sector * BLOCK, 32)) for sector in (0, 1)]

    def rewrite(self, sector, one, seq, state):
        """rewrite_ota_seq and the bootloader's write_otadata: erase the sector, then program the record."""
        at = self.find(DATA, OTADATA)[0][3] + sector * BLOCK
        self.erase(at, BLOCK)
        self.program(at, record(seq, state, one.label))

    def set_boot(self, entry):
        """esp_ota_set_boot_partition."""
        if entry[1] != APP:
            raise EspError(VALIDATE_FAILED)
        self.verify(entry)
        if entry[2] == FACTORY:
            found = self.find(DATA, OTADATA)
            if not found:
                raise EspError(NOT_FOUND)
            return self.erase(found[0][3], found[0][4])
        records = self.records()
        count = len(self.slots())
        slot = entry[2] & 15
        if slot >= count:
            raise EspError(INVALID_ARG)
        now = active(records)
        if now < 0:
            sector, seq = 0, slot + 1
        elif (records[now].seq - 1) % count == slot:
            sector, seq = now, records[now].seq
        else:
            sector, seq = 1 - now, next_seq(records[now].seq, slot, count)
        self.rewrite(sector, records[sector], seq, NEW if self.rollback else UNDEFINED)

    def mark_valid(self):
        """esp_ota_mark_app_valid_cancel_rollback: of the partition that otadata selects, whichever runs."""
        records = self.records()
        now = active(records)
        if now < 0 or not self.slots():
            raise EspError(FAIL)
        if records[now].state != VALID:
            self.rewrite(now, records[now], records[now].seq, VALID)

    def default(self):
        """find_default_boot_partition: factory, ota_0 and so on, test."""
        found = self.find(APP, FACTORY) or self.slots()[:1] or self.find(APP, TEST)
        return found[0] if found else None

    def selected(self):
        """esp_ota_get_boot_partition."""
        records = self.records()
        now = active(records)
        slots = self.slots()
        if now < 0 or not slots:
            return self.default()
        return slots[(records[now].seq - 1) % len(slots)]

    def next_update(self, entry):
        """esp_ota_get_next_update_partition."""
        slots = self.slots()
        if entry in slots:
            return slots[(slots.index(entry) + 1) % len(slots)]
        return slots[0] if slots else None

    # power

    def power_on(self) -> "tuple[str, int, int, int, int] | None":
        """What the bootloader does and starts: sets `running`. An image that cannot be loaded is passed over."""
        self.running = None
        try:
            index, initial = self._choose()
            self.running = self._load(index, initial)
        except EspError:
            pass  # the flash is gone: nothing runs
        return self.running

    def _choose(self):
        """bootloader_utility_get_selected_boot_partition: (index, are both records blank or damaged); -1 is factory."""
        if not self.find(DATA, OTADATA):
            return -1, False
        records = self.records()
        for sector in (0, 1):
            if self.rollback and records[sector].state == PENDING:
                records[sector].state = ABORTED
                self.rewrite(sector, records[sector], records[sector].seq, ABORTED)
        count = len(self.slots())
        if (records[0].out and records[1].out) or not count:
            if self.find(APP, FACTORY):
                return -1, False
            return 0, not records[0].intact and not records[1].intact
        now = active(records)
        if now < 0:
            return -1, False
        if self.rollback and records[now].state == NEW:
            self.rewrite(now, records[now], records[now].seq, PENDING)
        return (records[now].seq - 1) % count, False

    def _load(self, start, initial):
        """bootloader_utility_load_boot_image: down to factory, then up."""
        slots = self.slots()
        factory = self.find(APP, FACTORY)
        for index in list(range(start, -2, -1)) + list(range(start + 1, len(slots))):
            entry = slots[index] if index >= 0 else factory[0] if factory else None
            if entry:
                try:
                    self.verify(entry)
                except EspError as error:
                    if error.code != VALIDATE_FAILED:
                        raise
                    continue
                if initial and index >= 0:
                    self.rewrite(0, Record(b"\xff" * 32), index + 1, VALID)
                return entry
        return None


def _raised(act, *arguments):
    """check_esp_err."""
    try:
        return act(*arguments)
    except EspError as error:
        raise OSError(-error.code if error.code > 0 else error.code) from None


class Partition:
    """`esp32.Partition`; `chip` is the Chip of a subclass."""

    BOOT, RUNNING, TYPE_APP, TYPE_DATA = 0, 1, APP, DATA
    chip: "object" = None

    def __init__(self, id, block_size=BLOCK):
        chip = self.chip
        if isinstance(id, tuple):
            found = [id]
        elif isinstance(id, str):
            found = chip.find(APP, 0xFF, id) or chip.find(DATA, 0xFF, id)
        elif id == self.BOOT:
            try:
                found = [chip.selected()]
            except EspError:
                found = []
        elif id == self.RUNNING:
            found = [chip.running]
        else:
            raise ValueError
        if not found or not found[0]:
            raise OSError(ENOENT)
        self.entry = found[0]
        self.block_size = block_size

    @classmethod
    def find(cls, type=APP, subtype=0xFF, label=None, block_size=BLOCK):
        return [cls(entry, block_size) for entry in cls.chip.find(type, subtype, label)]

    def info(self):
        label, kind, subtype, address, size = self.entry
        return kind, subtype, address, size, label, False

    def _at(self, offset, size, step=1):
        """The place in flash. Raises EspError as esp_partition_read, _write and _erase_range do."""
        room = self.entry[4]
        if offset > room or offset < 0 or offset % step:
            raise EspError(INVALID_ARG)
        if offset + size > room or size % step:
            raise EspError(INVALID_SIZE)
        return self.entry[3] + offset

    def _erase(self, offset, size):
        self.chip.erase(self._at(offset, size, BLOCK), size)

    def _read(self, offset, buffer):
        view = memoryview(buffer)
        at = self._at(offset, len(view))
        while view:
            size = min(len(view), BLOCK - at % BLOCK)
            self.chip.read_into(at, view[:size])
            view = view[size:]
            at += size

    def _write(self, offset, buffer):
        self.chip.program(self._at(offset, len(buffer)), buffer)

    def readblocks(self, block, buffer, offset=0):
        _raised(self._read, block * self.block_size + offset, buffer)

    def writeblocks(self, block, buffer, offset=None):
        """Without `offset` the range is erased first; with it nothing is."""
        at = block * self.block_size + (offset or 0)
        if offset is None:
            if self.block_size >= BLOCK:
                _raised(self._erase, at, len(buffer))
            else:
                _raised(self._replace, at, buffer)
        _raised(self._write, at, buffer)

    def _replace(self, at, buffer):
        """Erase block by block, and put back what is beside the range."""
        top = at + len(buffer)
        for start in range(at - at % BLOCK, top, BLOCK):
            kept = bytearray(BLOCK)
            self._read(start, kept)
            self._erase(start, BLOCK)
            if start < at:
                self._write(start, kept[: at - start])
            if top < start + BLOCK:
                self._write(top, kept[top - start :])

    def ioctl(self, operation, argument):
        if operation in (1, 2, 3):
            return 0
        if operation == 4:
            return self.entry[4] // self.block_size
        if operation == 5:
            return self.block_size
        if operation == 6:
            if self.block_size != BLOCK:
                return -EINVAL
            _raised(self._erase, argument * BLOCK, BLOCK)
            return 0
        return None

    def set_boot(self):
        _raised(self.chip.set_boot, self.entry)

    def get_next_update(self):
        found = self.chip.next_update(self.entry)
        if not found:
            raise OSError(ENOENT)
        return type(self)(found)

    @classmethod
    def mark_app_valid_cancel_rollback(cls):
        _raised(cls.chip.mark_valid)


class Memory:
    """A flash in a bytearray, without faults. For those see hil/cuts/board/flash.py."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def readblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        for index in range(len(buffer)):
            self.data[at + index] &= buffer[index]

    def ioctl(self, operation, argument):
        if operation == 6:
            self.data[argument * BLOCK : (argument + 1) * BLOCK] = b"\xff" * BLOCK

# SPDX-License-Identifier: Apache-2.0
"""What is written on an ESP32's flash beside images: partition table, and otadata's records.

Runs on MicroPython and CPython. Sources: ESP-IDF components/partition_table/gen_esp32part.py, bootloader_support
(esp_flash_partitions.h, bootloader_common_loader.c).
"""

import binascii
import hashlib
import struct

from hil.esp32_image import EspError

TABLE_AT = 0x8000
TABLE_BYTES = 0xC00
APP, DATA = 0, 1
FACTORY, OTA_0, TEST = 0, 0x10, 0x20
OTADATA = 0
NEW, PENDING, VALID, INVALID, ABORTED = range(5)
UNDEFINED = 0xFFFFFFFF
STATES = (NEW, PENDING, VALID, INVALID, ABORTED, UNDEFINED)

# MicroPython's own tables for 4 MiB: (label, type, subtype, address, size).
SINGLE_TABLE = (
    ("nvs", DATA, 2, 0x9000, 0x6000),
    ("phy_init", DATA, 1, 0xF000, 0x1000),
    ("factory", APP, FACTORY, 0x10000, 0x1F0000),
    ("vfs", DATA, 0x81, 0x200000, 0x200000),
)
OTA_TABLE = (
    ("nvs", DATA, 2, 0x9000, 0x4000),
    ("otadata", DATA, OTADATA, 0xD000, 0x2000),
    ("phy_init", DATA, 1, 0xF000, 0x1000),
    ("ota_0", APP, OTA_0, 0x10000, 0x180000),
    ("ota_1", APP, OTA_0 + 1, 0x190000, 0x180000),
    ("vfs", DATA, 0x81, 0x310000, 0xF0000),
)


def table_bytes(entries: "object") -> bytes:
    """As gen_esp32part.py writes it: 32 bytes an entry, then the MD5 of them, then 0xff."""
    text = b""
    for label, kind, subtype, address, size in entries:
        text += struct.pack("<HBBII16sI", 0x50AA, kind, subtype, address, size, label.encode(), 0)
    text += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(text).digest()
    return text + b"\xff" * (TABLE_BYTES - len(text))


def read_table(data):
    """[(label, type, subtype, address, size)] of esp_partition_table_verify. Raises EspError if it is none."""
    found = []
    for at in range(0, len(data), 32):
        magic, kind, subtype, address, size, label, _ = struct.unpack("<HBBII16sI", data[at : at + 32])
        if magic == 0x50AA:
            found.append((label.split(b"\0")[0].decode(), kind, subtype, address, size))
        elif magic == 0xEBEB:
            if hashlib.md5(bytes(data[:at])).digest() != bytes(data[at + 16 : at + 32]):
                raise EspError(0x103)
        elif at and (magic, kind, subtype) == (0xFFFF, 0xFF, 0xFF):
            return found
        else:
            break
    raise EspError(0x103)


def crc(seq):
    """esp_rom_crc32_le(UINT32_MAX, &seq, 4), of the sequence number alone."""
    return binascii.crc32(struct.pack("<I", seq), 0xFFFFFFFF)


def record(seq, state, label=b"\xff" * 20, check=None):
    """esp_ota_select_entry_t: 32 bytes."""
    return struct.pack("<I20sII", seq, label, state, crc(seq) if check is None else check)


class Record:
    def __init__(self, raw):
        self.seq, self.label, self.state, self.crc = struct.unpack("<I20sII", bytes(raw))

    @property
    def intact(self):
        return self.seq != 0xFFFFFFFF and self.crc == crc(self.seq)

    @property
    def out(self):
        """bootloader_common_ota_select_invalid."""
        return self.seq == 0xFFFFFFFF or self.state in (INVALID, ABORTED)

    @property
    def valid(self):
        return not self.out and self.crc == crc(self.seq)


def active(records):
    """bootloader_common_get_active_otadata: 0, 1, or -1."""
    one, two = records
    if one.valid and two.valid:
        return 0 if max(one.seq, two.seq) == one.seq else 1
    return 0 if one.valid else 1 if two.valid else -1


def next_seq(seq, slot, count):
    """compute_ota_seq_for_target_slot."""
    found = (slot + 1) % count
    while seq > found:
        found += count
    return found

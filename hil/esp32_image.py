# SPDX-License-Identifier: Apache-2.0
"""App images of an ESP32: makes those that ESP-IDF and esptool take, checks and describes any as the bootloader does.

Runs on MicroPython and CPython. Sources: ESP-IDF components/bootloader_support/src/esp_image_format.c,
esp_app_format/include/esp_app_desc.h.
"""

import hashlib
import struct

VALIDATE_FAILED = 0x1503
HEADER = "<BBBBI" + "BBBB" + "HBHH" + "4s" + "B"  # esp_image_header_t, 24 bytes
MAX_SEGMENTS = 16
APP_DESC = 0xABCD5432
CHIPS = {"esp32": 0, "esp32s2": 2, "esp32c3": 5, "esp32s3": 9, "esp32c6": 13}
_MAPPED = ((0x3F400000, 0x3F800000), (0x400D0000, 0x40400000))  # ESP32: data and code that run from flash
_PAGE = 0x10000


class EspError(Exception):
    """code: esp_err_t."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def folded(data, checksum):
    """The XOR of all bytes of `data` and `checksum`."""
    while len(data) > 64:
        half = (len(data) + 1) // 2
        one, two = int.from_bytes(data[:half], "little"), int.from_bytes(data[half:], "little")
        data = (one ^ two).to_bytes(half, "little")
    for byte in data:
        checksum ^= byte
    return checksum


def app_image(
    version: str, behaviour: str = "micropython", size: int = 1024, chip: str = "esp32", fill: bytes = b""
) -> bytes:
    """An app image that ESP-IDF and esptool take. version: of its app descriptor, as is `behaviour` (its project name).

    size: bytes of its data segment; the image is some 100 more. fill: what that repeats; else it is the version, and
    images of two versions are alike nowhere.
    """
    desc = struct.pack("<IIII32s32s", APP_DESC, 0, 0, 0, version.encode(), behaviour.encode())
    desc += struct.pack("<16s16s32s32s", b"12:00:00", b"Jan  1 2026", b"v5.5", hashlib.sha256(fill).digest())
    desc += b"\0" * (256 - len(desc))
    data = desc
    line = 0
    while len(data) < size:
        data += b"%s %d\n" % (fill or version.encode(), line * 7919)
        line += 1
    data = data[: max(256, size) & ~3]
    code = (b"\x36\x41\x00\x1d\xf0" * 8)[:32]
    image = struct.pack(HEADER, 0xE9, 2, 2, 0x20, 0x40081000, 0xEE, 0, 0, 0, CHIPS[chip], 0, 0, 399, b"\0" * 4, 1)
    checksum = 0xEF
    for address, part in ((0x3F400020, data), (0x40081000, code)):
        image += struct.pack("<II", address, len(part)) + part
        checksum = folded(part, checksum)
    image += b"\0" * (15 - len(image) % 16) + bytes([checksum])
    return image + hashlib.sha256(image).digest()


def verify_image(read, room, chip_id, address=0):
    """esp_image_verify: how many bytes the image has. read(offset, size): of a partition of `room` bytes at `address`.

    Raises EspError VALIDATE_FAILED, whatever is wrong with it.
    """
    digest = hashlib.sha256()

    def take(at, size):
        if at + size > room:
            raise EspError(VALIDATE_FAILED)
        data = bytes(read(at, size))
        digest.update(data)
        return data

    head = struct.unpack(HEADER, take(0, 24))
    if head[0] != 0xE9 or head[9] != chip_id or head[1] > MAX_SEGMENTS:
        raise EspError(VALIDATE_FAILED)
    at = 24
    together = 0
    for index in range(head[1]):
        load, size = struct.unpack("<II", take(at, 8))
        at += 8
        mapped = [1 for low, high in _MAPPED if low <= load < high]
        if size & 3 or size >= 1 << 24 or (not index and size < 256) or (mapped and (address + at - load) % _PAGE):
            raise EspError(VALIDATE_FAILED)
        end = at + size
        while at < end:
            part = take(at, min(1024, end - at))
            together ^= int.from_bytes(part, "little")
            at += len(part)
    end = (at + 16) & ~15
    if take(at, end - at)[-1] != folded(together.to_bytes(1024, "little"), 0xEF):
        raise EspError(VALIDATE_FAILED)
    if head[14]:
        wanted = digest.digest()
        digest = hashlib.sha256()
        if take(end, 32) != wanted:
            raise EspError(VALIDATE_FAILED)
        end += 32
    return end


def describe(head):
    """(chip id, version, behaviour) of the first 112 bytes of an image; None if it has no app descriptor."""
    if len(head) < 112 or head[0] != 0xE9 or struct.unpack("<I", bytes(head[32:36]))[0] != APP_DESC:
        return None
    texts = [bytes(head[at : at + 32]).split(b"\0")[0].decode() for at in (48, 80)]
    return head[12] | head[13] << 8, texts[0], texts[1]

# SPDX-License-Identifier: Apache-2.0
"""The firmware of an ESP32 as an update artifact: one app image, such as MicroPython's `micropython.bin`.

What the bootloader and `Partition.set_boot` would refuse is refused here. Format: ESP-IDF esp_app_format.h (header,
segments), esp_app_desc.h, esp_image_format.c (checksum, appended SHA-256).
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

from edgeagent.ota import MAX_PAYLOAD
from edgefleet.artifacts.build import Artifact, build
from edgefleet.errors import InputError

FILE = "micropython.bin"
NAME = "firmware"
# esp_chip_id_t
CHIPS = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
}
_MAGIC = 0xE9
_DESCRIPTION = 0xABCD5432
_DESCRIPTION_BYTES = 256


@dataclass(frozen=True)
class Image:
    """chip: name of it. version, project, idf: of the app descriptor. size: bytes the bootloader looks at."""

    chip: str
    version: str
    project: str
    idf: str
    size: int


def read_image(data: bytes) -> Image:
    """The facts of an app image that is whole. Raises InputError saying what is wrong with it."""
    try:
        return _read(data)
    except (struct.error, IndexError):
        raise InputError("image: ends too early") from None


def _read(data: bytes) -> Image:
    magic, count = data[0], data[1]
    if magic != _MAGIC:
        raise InputError(f"image: begins with {magic:#04x}, not {_MAGIC:#04x}")
    (chip,) = struct.unpack_from("<H", data, 12)
    (word,) = struct.unpack_from("<I", data, 32)
    if word != _DESCRIPTION:
        raise InputError(
            "image: has no app descriptor: take the app image (micropython.bin), not one with a bootloader"
        )
    if chip not in CHIPS:
        raise InputError(f"image: is for the unknown chip {chip}")
    at, checksum = 24, 0xEF
    for number in range(count):
        _, size = struct.unpack_from("<II", data, at)
        part = data[at + 8 : at + 8 + size]
        if len(part) != size or size % 4 or (not number and size < _DESCRIPTION_BYTES):
            raise InputError(f"image: segment {number} of {size} bytes is cut off or of a wrong size")
        checksum = reduce(xor, part, checksum)
        at += 8 + size
    at = (at + 16) & ~15
    if data[at - 1] != checksum:
        raise InputError("image: the checksum is wrong")
    if data[23]:
        if data[at : at + 32] != hashlib.sha256(data[:at]).digest():
            raise InputError("image: the appended SHA-256 is wrong")
        at += 32
    return Image(CHIPS[chip], _text(data, 48), _text(data, 80), _text(data, 144), at)


def _text(data: bytes, at: int) -> str:
    return data[at : at + 32].split(b"\0")[0].decode(errors="replace")


def build_firmware(
    path: Path,
    boards: Sequence[str],
    *,
    name: str = NAME,
    version: str = "",
    requires: Mapping[str, str] | None = None,
    **options: Any,
) -> Artifact:
    """An unsigned artifact of type "firmware".

    path: the app image. version: that of its app descriptor, by which devices know what they run; another one is
    refused. boards, options: as of `build`. Raises InputError.
    """
    if not path.is_file() or path.stat().st_size > MAX_PAYLOAD:
        raise InputError(f"{path}: is no file, or larger than {MAX_PAYLOAD} bytes")
    data = path.read_bytes()
    image = read_image(data)
    if version not in ("", image.version):
        raise InputError(f"--version {version}: the image says {image.version}, and so will the devices")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(data)
        # "any": the image brings its own runtime and bytecode format, so those of the device do not matter.
        return build(
            Path(folder),
            name=name,
            version=image.version,
            boards=boards,
            runtime="any",
            requires={"partitions": "ota", **(requires or {})},
            type=NAME,
            **options,
        )


def image_of(artifact: Artifact) -> Image | None:
    """Of an artifact of type "firmware"; None for others. Raises InputError if its payload is not an app image."""
    return read_image(artifact.payload) if artifact.info.type == NAME else None

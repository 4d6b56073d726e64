# SPDX-License-Identifier: Apache-2.0
"""The factory file of the demo: heterogeneous devices, a few lines bad on purpose, the live devices among them."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

SITES = ("berlin", "lyon", "osaka", "austin")
KINDS = (
    # thing type, group, hardware revisions, share
    ("ESP32", "boards", ("ESP32_GENERIC", "ESP32_GENERIC_S3", "ESP32_GENERIC_C3"), 0.70),
    ("RASPBERRY_PI", "gateways", ("RPI_4B", "RPI_5", "RPI_ZERO_2_W"), 0.22),
    ("GREENGRASS_CORE", "gateways", ("RPI_5", "X86_64"), 0.08),
)
COLUMNS = ("SerialNumber", "Type", "Group", "Hardware", "Site", "Batch")

# (line as it stands in the file, what is wrong with it)
BAD_LINES = (
    ("esp32 with spaces,ESP32,boards,ESP32_GENERIC,berlin,2026-11", "a thing name with spaces"),
    ("esp32-f00001,ESP8266,boards,ESP8266_GENERIC,berlin,2026-11", "a thing type that does not exist"),
    ("pi-f00002,RASPBERRY_PI,gateways-typo,RPI_5,lyon,2026-11", "a group that does not exist"),
    ("esp32-f00003,ESP32,boards", "three columns are missing"),
    ("esp32-f00004,ESP32,boards,ESP32 GENERIC!,osaka,2026-11", "an attribute value with forbidden characters"),
)


@dataclass(frozen=True)
class Live:
    """A device that really runs in the demo."""

    serial: str
    type: str
    group: str
    hardware: str
    engine_starts: int


LIVE = (
    Live("esp32-live-1", "ESP32", "demo-boards", "UNIX_VIRTUAL", 20417),
    Live("esp32-live-2", "ESP32", "demo-boards", "UNIX_VIRTUAL", 19),
    Live("esp32-live-3", "ESP32", "demo-boards", "UNIX_VIRTUAL", 54002),
    Live("pi-live-1", "RASPBERRY_PI", "demo-gateways", "LINUX", 31007),
)


def write(path: Path, devices: int, seed: int = 2026) -> int:
    """Write the CSV: `devices` good lines and the bad ones between them. Returns the number of data lines."""
    chance = random.Random(seed)
    lines = [(live.serial, live.type, live.group, live.hardware, SITES[0], "2026-11") for live in LIVE]
    counters = {kind[0]: 0 for kind in KINDS}
    while len(lines) < devices:
        kind, group, hardware, _ = chance.choices(KINDS, weights=[entry[3] for entry in KINDS])[0]
        counters[kind] += 1
        prefix = {"ESP32": "esp32", "RASPBERRY_PI": "pi", "GREENGRASS_CORE": "core"}[kind]
        serial = f"{prefix}-{counters[kind]:06d}"
        lines.append((serial, kind, group, chance.choice(hardware), chance.choice(SITES), "2026-11"))
    chance.shuffle(lines)
    text = [",".join(line) for line in lines]
    for number, (bad, _) in enumerate(BAD_LINES, 1):
        text.insert(number * len(text) // (len(BAD_LINES) + 1), bad)
    with path.open("w", newline="") as out:
        csv.writer(out).writerow(COLUMNS)
        out.write("\n".join(text) + "\n")
    return len(text)

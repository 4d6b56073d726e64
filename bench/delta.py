# SPDX-License-Identifier: Apache-2.0
"""Figures of deltas: `python -m bench.delta`. The last line is all of them as JSON.

Pairs of releases of a package that boards use, from PyPI, as an application compiled to .mpy and as .py; `firmware` is
a pair of real images, MicroPython for the micro:bit as two releases of uflash have it, years apart. Of each: bytes of
the new payload and of the patch, and the patch in percent. Of the largest, applied on MicroPython: ns and (with
valgrind, whose count does not depend on the machine's load) instructions a byte, heap, longest time between two yields.
Without a network what cannot be had is left out, and `skipped` says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from bench.figures import tell
from edgefleet.artifacts.build import Artifact, build
from edgefleet.artifacts.delta import make_delta
from hil.virtual_board import interpreter

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "microdot"
PAIRS = (
    ("2.3.1", "2.3.2"),
    ("2.3.3", "2.3.4"),
    ("2.3.4", "2.3.5"),
    ("2.0.1", "2.0.6"),
)  # three small changes, one large
FIRMWARE = "uflash"
FIRMWARE_PAIR = ("1.1.3", "1.2.4")
ROUNDS = 3


def fetched(package: str, version: str, folder: Path, kind: str = "--only-binary") -> dict[str, bytes]:
    """The files of a wheel, or (--no-binary) of a source package. Raises OSError if it cannot be had."""
    place = folder / f"{package}-{version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", kind, ":all:", "-d", str(place)]
    result = subprocess.run(
        [*command, f"{package}=={version}"], capture_output=True, text=True, timeout=120, check=False
    )
    found = list(place.iterdir()) if place.is_dir() else []
    if result.returncode or not found:
        raise OSError(f"{package} {version}: {(result.stderr.strip().splitlines() or ['nothing'])[-1]}")
    if found[0].suffix == ".whl":
        with zipfile.ZipFile(found[0]) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(found[0]) as archive:
        return {one.name: file.read() for one in archive if (file := archive.extractfile(one))}


def application(files: dict[str, bytes], version: str, runtime: str) -> Artifact:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            if name.endswith(".py"):
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return build(Path(folder), name=PACKAGE, version=version, boards=["*"], runtime=runtime)


def image(files: dict[str, bytes], version: str) -> Artifact:
    """The firmware that uflash.py has as Intel HEX, as the only file of a payload."""
    text = next(data for name, data in files.items() if name.endswith("/uflash.py")).decode()
    made = bytearray()
    base = 0
    for line in re.findall(r"^(?:\w+ = \"\"\")?:([0-9A-F]+)$", text, re.M):
        record = bytes.fromhex(line)
        if record[3] == 4:
            base = int.from_bytes(record[4:6], "big") << 16
        elif record[3] == 0 and base < 1 << 28:  # above are fuses
            at = base + int.from_bytes(record[1:3], "big")
            made.extend(b"\xff" * (at + record[0] - len(made)))
            made[at : at + record[0]] = record[4:-1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "image.bin").write_bytes(made)
        return build(Path(folder), name="image", version=version, boards=["*"], runtime="any")


def applied(old: Artifact, new: Artifact, patch: bytes) -> dict[str, Any]:
    """What it costs on MicroPython."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("old", "new", "patch")]
        for path, data in zip(paths, (old.payload, new.payload, patch), strict=True):
            Path(path).write_bytes(data)

        def run(rounds: int, *before: str) -> tuple[str, str]:
            command = [*before, interpreter(), str(ROOT / "bench" / "delta_program.py"), *paths, str(rounds)]
            environment = {**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"}
            result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
            return result.stdout, result.stderr

        found: dict[str, Any] = json.loads(run(ROUNDS)[0].splitlines()[-1])
        if shutil.which("valgrind"):
            counts = []
            for rounds in (1, 2):
                text = run(rounds, "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")[1]
                counts.append(int(re.search(r"refs:\s+([\d,]+)", text)[1].replace(",", "")))  # type: ignore[index]
            found["instructions_a_byte"] = round((counts[1] - counts[0]) / len(new.payload))
        return found


def deltas() -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = {}
    skipped = []
    most: tuple[Artifact, Artifact, bytes] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def add(label: str, old: Artifact, new: Artifact) -> None:
            nonlocal most
            patch = make_delta(old, new)
            found[f"delta_{label}_bytes"] = len(patch)
            found[f"delta_{label}_full_bytes"] = len(new.payload)
            found[f"delta_{label}_percent"] = round(100 * len(patch) / len(new.payload), 2)
            if most is None or len(new.payload) > len(most[1].payload):
                most = old, new, patch

        for old, new in PAIRS:
            try:
                one, two = (fetched(PACKAGE, version, folder) for version in (old, new))
            except OSError as error:
                skipped.append(str(error))
                continue
            for runtime, label in (("micropython", "mpy"), ("any", "py")):
                add(f"{label}_{old}_{new}", application(one, old, runtime), application(two, new, runtime))
        try:
            old, new = FIRMWARE_PAIR
            one, two = (fetched(FIRMWARE, version, folder, "--no-binary") for version in FIRMWARE_PAIR)
            add(f"firmware_{old}_{new}", image(one, old), image(two, new))
        except OSError as error:
            skipped.append(str(error))
    if most:
        found |= {f"delta_apply_{name}": value for name, value in applied(*most).items()}
    if skipped:
        found["delta_skipped"] = skipped
    return found


if __name__ == "__main__":
    tell(deltas())

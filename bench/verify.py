# SPDX-License-Identifier: Apache-2.0
"""What each signature scheme costs a board, counted: `python -m bench.verify`. The last line is all of it as JSON.

Operations are those of tests/device/meter.py, whose weights give the estimate at 240 MHz; the slice is the longest time
without letting others run, of 20 ms at most. Bytes are those of the signature and of the verifier's .mpy.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bench.figures import tell
from edgeagent.ota import ecdsa, lms, rsa
from edgefleet.devices import agent_bytecode
from tests.device.meter import Meter, run
from tests.portable import ota_support, signers

DIGEST = hashlib.sha256(b"message").digest()
KEY: Any = ota_support.KEY  # not typed: it runs on MicroPython too
HSS: Any = signers.HssKey
LMS: Any = signers.LmsKey


def _row(name: str, meter: Meter, bits: int, signature: int) -> dict[str, int | float]:
    files = agent_bytecode("ESP32_GENERIC")
    modules = ["ota/ecdsa", "p256"] if name == "ecdsa" else ["ota/" + name.split("-")[0]]
    return {
        **meter.total,
        "ms": round(meter.us(bits, whole=True) / 1000),
        "slice_ms": round(meter.us(bits) / 1000, 1),
        "signature_bytes": signature,
        "mpy_bytes": sum(len(files[f"edgeagent/{module}.mpy"]) for module in modules),
    }


def verify() -> dict[str, dict[str, int | float]]:
    """Scheme → its row."""
    found = {}
    signature = KEY.sign(DIGEST)
    found["ecdsa"] = _row("ecdsa", run(ecdsa.verify(KEY.public, DIGEST, signature))[0], 256, len(signature))
    for bits in (2048, 3072):
        size = bits // 8  # any number takes as long as a signature
        meter, _ = run(rsa.verify(b"\xff" * size, DIGEST, b"\xfe" * size))
        found[f"rsa-{bits}"] = _row(f"rsa-{bits}", meter, bits, size)
    for width in (4, 8):
        key = HSS(LMS(b"1", width))
        signature = key.sign(DIGEST)
        meter, good = run(lms.verify(key.public, DIGEST, signature))
        assert good
        found[f"lms-w{width}"] = _row(f"lms-w{width}", meter, 256, len(signature))
    return found


if __name__ == "__main__":
    tell(verify())

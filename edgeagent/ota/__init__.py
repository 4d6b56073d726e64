# SPDX-License-Identifier: Apache-2.0
"""Over-the-air updates of the application. The format, the rules and every error code: docs/ota.md.

manifest.py  what an artifact is            verify.py + ecdsa.py rsa.py lms.py  who may publish it, and for what device
transfer.py  how blocks arrive              writer.py             how verified blocks reach the slot
slots.py     fill and activate a slot       trial.py              which one runs, trial, confirmation, rollback
launch.py + safety.py  start the right slot and survive it        guard.py  no trial lasts for ever
Boards load each of them when it is needed and drop it again.
"""

MAX_PAYLOAD = 8388608  # bytes; its hash list is then 64 KiB, which only larger devices can hold


class Running:
    """What `trial.boot` chose in this process. slot: "a", "b", "" for none; None if it did not run here."""

    slot: "str | None" = None

# SPDX-License-Identifier: Apache-2.0
"""Over-the-air updates of the application. The format, the rules and every error code: docs/ota.md.

manifest.py  what an artifact is            verify.py + ecdsa.py  who may publish it, and whether it fits this device
transfer.py  how blocks arrive              writer.py             how verified blocks reach the slot
slots.py     the two slots                  state.py + trial.py   which one runs, trial, confirmation, rollback
launch.py    start the right slot           guard.py              no trial lasts for ever
"""

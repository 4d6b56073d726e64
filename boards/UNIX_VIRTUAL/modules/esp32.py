# SPDX-License-Identifier: Apache-2.0
"""`esp32` of the virtual board: non-volatile storage, the IDF's heap figures, and Partition (hil/esp32_flash.py).

NVS models ESP-IDF's entry arithmetic: 6 pages of 126 entries of 32 bytes, one page kept free for collection; a number
takes one entry, a blob two and one for each 32 bytes. What was not committed is lost at a reset (the real one may have
written it). When no page is free at power-on, everything is erased, as ports/esp32/main.c does.
Sources: ESP-IDF docs "Non-Volatile Storage Library"; MicroPython docs/library/esp32.rst, ports/esp32/esp32_nvs.c.
"""

import json
import os

import machine

HEAP_DATA = 4
HEAP_EXEC = 1
_ENTRIES = 5 * 126
_KEY_CHARS = 15
_NOT_FOUND = -0x1102
_NO_SPACE = -0x1105
_KEY_TOO_LONG = -0x1109


def __getattr__(name):
    if name != "Partition":
        raise AttributeError(name)
    from hil import esp32_flash

    found = esp32_flash.Chip(machine._flash)
    found.running = [entry for entry in found.table if entry[0] == os.getenv("BOARD_APP")][0]
    return found.Partition


def idf_heap_info(kind):
    """(total, free, largest free block, least free) of each region. Fixed: C memory is the host's here."""
    return [(166000, 90000, 53248, 60000), (14000, 4000, 3000, 2000)]


def _cost(value):
    return 1 if isinstance(value, int) else 2 + (len(value) // 2 + 31) // 32


def _used(store):
    return sum(_cost(value) for value in store.values())


def _load():
    try:
        store = json.loads(machine._nvs_read() or "{}")
    except ValueError:
        store = {}
    if _used(store) >= _ENTRIES:
        store = {}
        machine._nvs_write("{}")
    return store


_store = _load()  # "namespace/key" -> number, or hex of a blob


class NVS:
    def __init__(self, namespace):
        if not 0 < len(namespace) <= _KEY_CHARS:
            raise OSError(_KEY_TOO_LONG, "ESP_ERR_NVS_KEY_TOO_LONG")
        self._space = namespace + "/"

    def _name(self, key):
        if not 0 < len(key) <= _KEY_CHARS:
            raise OSError(_KEY_TOO_LONG, "ESP_ERR_NVS_KEY_TOO_LONG")
        return self._space + key

    def _find(self, key, kind):
        value = _store.get(self._name(key))
        if not isinstance(value, kind):
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return value

    def _keep(self, key, value):
        name = self._name(key)
        old = _store.get(name)
        if _used(_store) - (_cost(old) if old is not None else 0) + _cost(value) > _ENTRIES:
            raise OSError(_NO_SPACE, "ESP_ERR_NVS_NOT_ENOUGH_SPACE")
        _store[name] = value

    def set_i32(self, key, value):
        if not -0x80000000 <= value <= 0x7FFFFFFF:
            raise OverflowError("overflow converting long int to machine word")
        self._keep(key, value)

    def get_i32(self, key):
        return self._find(key, int)

    def set_blob(self, key, value):
        self._keep(key, bytes(value).hex())

    def get_blob(self, key, buffer):
        value = bytes.fromhex(self._find(key, str))
        if len(value) > len(buffer):
            raise OSError(-0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key):
        if _store.pop(self._name(key), None) is None:
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")

    def commit(self):
        machine._nvs_write(json.dumps(_store))

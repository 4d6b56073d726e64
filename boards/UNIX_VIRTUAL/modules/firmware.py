# SPDX-License-Identifier: Apache-2.0
"""What a board's firmware does at power-on: mount the flash at `/`, run boot.py, then main.py.

As on esp32 (ports/esp32/main.c, shared/runtime/pyexec.c): if boot.py raises, main.py is not run; if main.py raises or
returns, the board sits in the REPL. A missing boot.py counts as success.
"""

import os
import sys

import chip
import machine
import vfs


def _code(path):
    with open(path) as file:
        return compile(file.read(), path, "exec")  # the text is garbage before the script runs


def _flash():
    cut = os.getenv("BOARD_CUT")
    if cut:
        from fuse import FusedFlash

        return FusedFlash("flash.bin", cut)
    from flash import Flash

    return Flash("flash.bin")


def _start():
    if chip.NAME == "esp32":
        from flash import Flash

        from hil import esp32_flash  # noqa: F401  C code on the chip: it has its own room in the heap

        machine._flash = Flash("partitions.bin")  # the host's files are out of reach soon
    filesystem = vfs.VfsLfs2(_flash())
    vfs.umount("/")
    vfs.mount(filesystem, "/")
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib", "/.rom"]
    chip.apply()
    for name in ("flash", "firmware", "chip"):
        sys.modules.pop(name, None)
    for script in ("boot.py", "main.py"):
        try:
            os.stat(script)
        except OSError:
            continue
        try:
            exec(_code(script), {"__name__": "__main__"})
        except SystemExit:  # sys.exit() in a script is a soft reset (shared/runtime/pyexec.c)
            machine.soft_reset()
        except BaseException as error:
            sys.print_exception(error)
            return


print("virtual board, reset cause", machine.reset_cause())
_start()

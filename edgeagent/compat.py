# SPDX-License-Identifier: Apache-2.0
"""What differs between MicroPython and CPython, and durable files. The only place with such ImportError pairs.

Durable write: temporary file, flush (and fsync where it exists), atomic rename. On littlefs data commits at close
and a rename replaces atomically; on POSIX the fsync of file and folder does the same.
"""

import io
import os
import sys

MICROPYTHON = sys.implementation.name == "micropython"

try:
    from typing import Any as Any
except ImportError:
    # For annotations, which MicroPython drops: one name here is cheaper than a try/except in every module.
    Any = object  # type: ignore[misc, assignment]

try:
    from micropython import const as const
except ImportError:

    def const(value: Any) -> Any:
        """Compile-time constant on MicroPython, identity elsewhere."""
        return value


def exc_text(error: BaseException) -> str:
    """One line naming an exception: type and message, at most 200 characters."""
    text = str(error)
    name = type(error).__name__
    return ("%s: %s" % (name, text) if text else name)[:200]


def traceback_text(error: BaseException, limit: int) -> str:
    """The traceback of `error`, its last `limit` characters."""
    if MICROPYTHON:
        out = io.StringIO()
        sys.print_exception(error, out)  # type: ignore[attr-defined]
        text = out.getvalue()
    else:
        import traceback

        text = "".join(traceback.format_exception(error))
    return text[-limit:]


def exists(path: str) -> bool:
    """True if a file or folder is at `path`."""
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def is_dir(path: str) -> bool:
    """True if `path` is a folder."""
    try:
        return bool(os.stat(path)[0] & 0x4000)
    except OSError:
        return False


def make_dirs(path: str) -> None:
    """Create a folder and its parents; existing ones are fine."""
    parts = path.split("/")
    for n in range(1, len(parts) + 1):
        part = "/".join(parts[:n])
        if part and not exists(part):
            os.mkdir(part)


def remove_tree(path: str) -> None:
    """Delete a file, or a folder with all it holds. A missing path is fine. Links are not followed."""
    if not MICROPYTHON and os.path.islink(path):
        os.unlink(path)
        return
    if is_dir(path):
        for name in os.listdir(path):
            remove_tree(path + "/" + name)
        os.rmdir(path)
    elif exists(path):
        os.unlink(path)


def read_file(path: str, limit: int) -> "bytes | None":
    """The bytes of a file, or None if it is missing or larger than `limit` bytes."""
    try:
        if os.stat(path)[6] > limit:
            return None
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return None


def sync_file(f) -> None:  # type: ignore[no-untyped-def]
    """Make what was written to an open file durable, as far as the runtime can say so."""
    f.flush()
    if not MICROPYTHON:
        os.fsync(f.fileno())


def sync_dir(path: str) -> None:
    """Make the names in a folder durable (POSIX; littlefs needs nothing)."""
    if not MICROPYTHON:
        fd = os.open(path or ".", os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomic(path: str, data: "bytes | bytearray | memoryview", private: bool = False) -> None:
    """Replace a file so that a power cut leaves the old or the new bytes, never a mixture.

    private: only the owner may read it (POSIX mode 0600).
    Raises OSError (ENOSPC, EIO); the old file is then untouched.
    """
    temporary = path + ".new"
    if private and not MICROPYTHON:
        if exists(temporary):
            os.unlink(temporary)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with open(temporary, "wb") as f:
        f.write(data)
        sync_file(f)
    os.rename(temporary, path)
    sync_dir(path[: path.rfind("/")] if "/" in path else "")

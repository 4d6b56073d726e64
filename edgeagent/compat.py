# SPDX-License-Identifier: Apache-2.0
"""What differs between MicroPython and CPython, and durable files. The only place that tells the runtimes apart so.

Durable write: temporary file, flush (and fsync where it exists), atomic rename. On littlefs data commits at close
and a rename replaces atomically; on POSIX the fsync of file and folder does the same.
"""

import io
import os
import sys

try:
    # For annotations, which MicroPython drops: one name here is cheaper than a try/except in every module.
    from typing import Any as Any

    from edgeagent import posix as posix
    from edgeagent.posix import const as const
    from edgeagent.posix import shut as shut
    from edgeagent.posix import wait_for as wait_for

except ImportError:
    from asyncio import wait_for as wait_for  # type: ignore[assignment]

    from micropython import const as const  # type: ignore[no-redef, unused-ignore]

    Any = posix = None  # type: ignore[misc, assignment]

    def shut(writer):  # type: ignore[no-untyped-def, misc]
        """Close a stream."""
        return writer.wait_closed()


MICROPYTHON = not posix
_ENOENT = const(2)
_ENOTDIR = const(20)


def exc_text(error: BaseException) -> str:
    """One line naming an exception: type and message, at most 200 characters."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # an application's own
        text = ""
    return (name + ": " + text if text else name)[:200]


def traceback_text(error: BaseException, limit: int) -> str:
    """The traceback of `error`, its last `limit` characters."""
    if posix:
        text = posix.traceback_text(error)
    else:
        out = io.StringIO()
        try:
            sys.print_exception(error, out)  # type: ignore[attr-defined]
        except Exception:  # noqa: S110  of its __str__: the lines before it are there
            pass
        text = out.getvalue()
    return text[-limit:]


def exists(path: str) -> int:
    """The mode of the file or folder at `path`; 0 if there is none. Raises OSError if that cannot be found out."""
    try:
        return os.stat(path)[0]
    except OSError as error:
        if error.errno not in (_ENOENT, _ENOTDIR):
            raise
        return 0


def is_dir(path: str) -> bool:
    """True if `path` is a folder."""
    return exists(path) >> 12 == 4  # S_IFMT, S_IFDIR; a socket has that bit, too


def make_dirs(path: str) -> None:
    """Create a folder and its parents, and make their names durable; existing ones are fine."""
    if path and not exists(path):
        parent = path.rpartition("/")[0]
        make_dirs(parent)
        os.mkdir(path)
        if posix:
            posix.sync_dir(parent)


def remove_tree(path: str) -> None:
    """Delete a file, or a folder with all it holds. A missing path is fine. Links are not followed."""
    if posix and os.path.islink(path):
        os.unlink(path)
    elif is_dir(path):
        for name in os.listdir(path):
            remove_tree(path + "/" + name)
        os.rmdir(path)
    elif exists(path):
        os.unlink(path)


def read_file(path: str, limit: int) -> "bytes | None":
    """The bytes of a file, or None if it is missing, larger than `limit` bytes, or cannot be read.

    A read that goes wrong may do so once: the file is then read again.
    """
    for last in (0, 1):
        try:
            size = os.stat(path)[6]
            if size > limit:
                break
            with open(path, "rb") as f:
                data = f.read()
            if last or len(data) == size:
                return data
        except OSError:
            pass
    return None


def sync_file(f) -> None:  # type: ignore[no-untyped-def]
    """Make what was written to an open file durable, as far as the runtime can say so."""
    f.flush()
    if posix:
        os.fsync(f.fileno())


def sync_dir(path: str) -> None:
    """Make the names in a folder durable (POSIX; littlefs needs nothing)."""
    if posix:
        posix.sync_dir(path)


def write_atomic(path: str, data: "bytes | bytearray | memoryview", private: bool = False) -> None:
    """Replace a file so that a power cut leaves the old or the new bytes, never a mixture.

    private: only the owner may read it (POSIX mode 0600).
    Raises OSError (ENOSPC, EIO); the old file is then untouched.
    """
    temporary = path + ".new"
    if posix and private:
        posix.create_private(temporary)
    with open(temporary, "wb") as f:
        f.write(data)
        sync_file(f)
    try:
        os.rename(temporary, path)
    except OSError:
        if read_file(path, len(data)) != data:
            raise  # else a failing flash has done it all the same
    if posix:
        posix.sync_dir(path.rpartition("/")[0])

# SPDX-License-Identifier: Apache-2.0
"""What a slot holds: an index, and the contents of its files in the store, each once, under its own hash.

slots/a.idx: 8 bytes of the SHA-256 of what follows; a newline; a line a file, in the manifest's order: path, bytes,
name in slots/store. Boards see it through `View`, which stays in memory with all of this module: keep it small. What an
import does not need is in view.py.
"""

from edgeagent.compat import Any

MOUNT = "/slot"  # not below another mount, where MicroPython would not find it


def find(index: str, part: str) -> "list[str] | None":
    """Of the line that holds `part`, which begins at a newline or space: the words from there on; None without one.

    A line has 247 bytes at most. The index is read piece by piece: a table of it would cost the application its heap.
    """
    with open(index, "rb") as f:
        f.seek(8)
        held = b""
        while True:
            data = f.read(256)
            held = held[-256:] + data
            at = held.find(part.encode())
            end = held.find(b"\n", at + 1)
            if at >= 0 and end > 0:
                return held[at:end].decode().split()
            if not data:
                return None


def mount(slot: str) -> str:
    """Show the files of a slot that has an index. Returns the folder they are in."""
    import vfs

    vfs.mount(View(slot), MOUNT)
    return MOUNT


class View:
    """A file system, to be read only, of the files in an index. slot: path of the slot."""

    def __init__(self, slot: str) -> None:
        self.index = slot + ".idx"
        self.folder = ""

    def mount(self, *_: "Any") -> None:
        """Called by vfs.mount, vfs.umount."""

    umount = mount

    def path(self, path: str) -> str:
        """From the root of the view on, without / at the ends."""
        if path[:1] != "/":
            path = self.folder + "/" + path
        if "/." in path or "//" in path:
            from edgeagent.ota.view import plain

            path = plain(path)
        return path.strip("/")

    def stat(self, path: str) -> "tuple[int, ...]":
        """As os.stat. Raises OSError."""
        path = self.path(path)
        found = find(self.index, "\n%s " % path)
        if not found and path and not find(self.index, "\n%s/" % path):
            raise OSError(2)
        return 0x8000 if found else 0x4000, 0, 0, 0, 0, 0, int(found[1]) if found else 0, 0, 0, 0

    def open(self, path: str, mode: str) -> "Any":
        """As open. Raises OSError."""
        found = find(self.index, "\n%s " % self.path(path))
        if mode.strip("rbt"):
            raise OSError(30)
        if not found:
            raise OSError(2)
        return open(self.index[:-5] + "store/" + found[2], mode)

    def __getattr__(self, name: str) -> "Any":
        from edgeagent.ota.view import Rest

        return getattr(Rest(self), name)

# SPDX-License-Identifier: Apache-2.0
"""What a slot holds: an index, and the contents of its files in the store, each once, under its own hash.

slots/a.idx: 8 bytes of the SHA-256 of what follows; a newline; a line a file, in the manifest's order: path, bytes,
name in slots/store. Boards see it through `View`, which stays in memory with all of this module: keep it small.
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


def lines(index: str) -> "Any":
    """[path, bytes as text, name in the store] of each file."""
    with open(index, "rb") as f:
        f.seek(9)
        for line in f:
            yield line.decode().split()


def mount(slot: str) -> str:
    """Show the files of a slot that has an index. Returns the folder they are in."""
    import vfs

    vfs.mount(View(slot), MOUNT)
    return MOUNT


class View:
    """A file system, to be read only, of the files in an index. slot: path of the slot."""

    def __init__(self, slot: str) -> None:
        self._index = slot + ".idx"
        self._store = slot[:-1] + "store/"
        self._folder = ""

    def mount(self, *_: "Any") -> None:
        """Called by vfs.mount, vfs.umount."""

    umount = mount

    def _path(self, path: str) -> str:
        parts: "list[str]" = []
        if path[:1] != "/":
            path = self._folder + "/" + path
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)

    def stat(self, path: str) -> "tuple[int, ...]":
        """As os.stat. Raises OSError."""
        path = self._path(path)
        found = find(self._index, "\n%s " % path)
        if not found and path and not find(self._index, "\n%s/" % path):
            raise OSError(2)
        return 0x8000 if found else 0x4000, 0, 0, 0, 0, 0, int(found[1]) if found else 0, 0, 0, 0

    def open(self, path: str, mode: str) -> "Any":
        """As open. Raises OSError."""
        if mode.strip("rbt"):
            self.remove()
        found = find(self._index, "\n%s " % self._path(path))
        if not found:
            raise OSError(2)
        return open(self._store + found[2], mode)

    def remove(self, *_: "Any") -> None:
        """Raises OSError: nothing can be changed."""
        raise OSError(30)

    mkdir = rmdir = rename = remove

    def ilistdir(self, path: str) -> "Any":
        """As os.ilistdir. Raises OSError."""
        path = self._path(path)
        self.stat("/" + path)
        path += "/" if path else ""
        seen: "set[str]" = set()
        for name, size, _ in lines(self._index):
            if name.startswith(path):
                name, inner, _ = name[len(path) :].partition("/")
                if name not in seen:
                    seen.add(name)
                    yield (name, 0x4000, 0, 0) if inner else (name, 0x8000, 0, int(size))

    def chdir(self, path: str) -> None:
        """As os.chdir. Raises OSError."""
        path = self._path(path)
        self.stat("/" + path)
        self._folder = path

    def getcwd(self) -> str:
        """As os.getcwd."""
        return "/" + self._folder

# SPDX-License-Identifier: Apache-2.0
"""What store.View does besides opening files: loaded when an application asks for it."""

from edgeagent.compat import Any


def plain(path: str) -> str:
    """`path`, which begins with /, without . and .. in it."""
    parts: "list[str]" = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)


class Rest:
    """Its other methods."""

    def __init__(self, view: "Any") -> None:
        self._view = view

    def remove(self, *_: "Any") -> None:
        """Raises OSError: nothing can be changed."""
        raise OSError(30)

    mkdir = rmdir = rename = remove

    def ilistdir(self, path: str) -> "Any":
        """As os.ilistdir. Raises OSError."""
        view = self._view
        path = view.path(path)
        view.stat("/" + path)
        if path:
            path += "/"
        seen: "set[str]" = set()
        with open(view.index, "rb") as f:
            f.seek(9)
            for line in f:
                name, size, _ = line.decode().split()
                if name.startswith(path):
                    name, inner, _ = name[len(path) :].partition("/")
                    if name not in seen:
                        seen.add(name)
                        yield (name, 0x4000, 0, 0) if inner else (name, 0x8000, 0, int(size))

    def chdir(self, path: str) -> None:
        """As os.chdir. Raises OSError."""
        view = self._view
        path = view.path(path)
        view.stat("/" + path)
        view.folder = path

    def getcwd(self) -> str:
        """As os.getcwd."""
        return "/" + self._view.folder  # type: ignore[no-any-return]

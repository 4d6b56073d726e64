# SPDX-License-Identifier: Apache-2.0
"""Verified blocks into the files of a plain folder, for boards: slots.Slots with PLAIN."""

import os

from edgeagent import compat
from edgeagent.ota.writer import Writer


class Folder(Writer):
    """As Writer; the files lie in the folder `slot` under their own paths, and there is no index.

    What does not belong to the artifact is deleted: a stale module would shadow a new one. Modes are not set.
    """

    PLAIN = True

    def __init__(self, slot: str, manifest: "compat.Any", hashes: "compat.Any") -> None:
        Writer.__init__(self, slot, manifest, hashes)
        self._files = list(manifest.files)

    def label(self, number: int) -> str:
        """Path of the `number`-th file in the manifest."""
        return self._files[number][0]  # type: ignore[no-any-return]

    def path(self, number: int) -> str:
        """As Writer.path."""
        return self.slot + "/" + self.label(number)

    def tidy(self, folder: str) -> None:
        """Delete what does not belong from `folder`, which ends with "/". Raises OSError."""
        for name in os.listdir(folder):
            path = folder + name
            keep = False
            for number in range(self.count):
                keep = keep or (self.path(number) + "/").startswith(path + "/")
            if not keep:
                compat.remove_tree(path)
            elif compat.is_dir(path):
                self.tidy(path + "/")

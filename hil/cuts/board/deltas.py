# SPDX-License-Identifier: Apache-2.0
"""Updates by a patch, and by one that turns out bad when half of it is used."""

import binascii

from edgeagent import compat
from edgeagent.ota import delta
from hil.cuts.board.content import BLOCK, hexed, seal_slot, sha, write
from hil.cuts.board.patch import patch, squeezed
from hil.cuts.board.scenarios import Update, app, part

assert delta  # loaded once
OLD = hexed(sha(b"1.0.0"))
NEW = b'PART = "2.0.0"\n' + b"".join([b"# %s\n" % hexed(sha(b"%d" % n)).encode() for n in range(130)])


def offer(update, known, old, same):
    """Have an update come as a patch, too. known: id of the artifact with payload `old`. same: where the two begin to
    differ, in bytes.
    """
    ids = binascii.unhexlify(known[:32] + update.new_id[:32])
    update.patch = patch(old, update.payload, [(0, same, len(update.payload) - same)], ids, squeezed)
    update.parts += (update.patch,)
    update.document["deltas"] = [{"from": known, "bytes": len(update.patch), "file": 3}]


class Delta(Update):
    """The old version came as an artifact; the patch has three blocks, and replaces six. Another patch is left over."""

    old = {"app.py": app("1.0.0", 12000), "lib/part.py": part("1.0.0")}
    new = {"app.py": app("2.0.0", 12000), "lib/part.py": NEW}
    blocks = 64
    records = ()
    why = ""  # of a fall-back

    def __init__(self):
        Update.__init__(self)
        offer(self, OLD, self.base(), 12000)

    def base(self):
        """The payload that the patch is made for."""
        return b"".join([data for _, data in sorted(self.old.items())])

    def factory(self, root):
        Update.factory(self, root)
        seal_slot(root + "/slots", "a", "1.0.0", OLD, 0)
        write(root + "/slots/patch", delta.MAGIC + bytes(2 * BLOCK - 4))

    def reported(self, device, details):
        Update.reported(self, device, details)
        # A cut after the reason was tidied away and before the report may lose it; it was in those of the progress.
        allowed = (self.why, "") if device.world["boots"] > 2 else (self.why,)
        # On a disk the size of a file may be there before its last block: then the payload comes instead.
        if device.strict and compat.MICROPYTHON and details.get("delta", "") not in allowed:
            device.fail("(e) the delta: %s" % details)

    def needed(self):
        blocks = (len(self.patch) + BLOCK - 1) // BLOCK
        return blocks if compat.MICROPYTHON else blocks + Update.needed(self)


class BadDelta(Delta):
    """The patch was made for other bytes: the payload comes, and the patch not again."""

    why = "UpdateError: block-hash: block 0"

    def base(self):
        return b"?" + Delta.base(self)[1:]

    def needed(self):
        return Delta.needed(self) + Update.needed(self)


SCENARIOS = {"delta": Delta, "delta-bad": BadDelta}

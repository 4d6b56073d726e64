# SPDX-License-Identifier: Apache-2.0
"""LMS/HSS: every width, up to three levels, and what is no signature. RFC vectors: test_signature_vectors.py."""

import asyncio
import unittest

from edgeagent.ota import lms
from tests.portable.ota_support import sha
from tests.portable.signers import HssKey, LmsKey, u32

DIGEST = sha(b"message")
KEY = LmsKey()
SIGNATURE = KEY.sign(DIGEST)
Y = 12 + 32  # of the first chain: levels, q, type, C
PATH = Y + 32 * 67


def verify(signature, digest=DIGEST, public=KEY.public):
    return asyncio.run(lms.verify(public, digest, signature))


def changed(data, at, value):
    return data[:at] + value + data[at + len(value) :]


class Accepted(unittest.TestCase):
    def test_every_width(self):
        for width in (1, 2, 4):
            key = LmsKey(b"w", width)
            for message in (b"", b"a", DIGEST):
                self.assertTrue(verify(key.sign(message), message, key.public), width)

    def test_first_and_last_leaf(self):
        key = LmsKey(b"leaves")
        for leaf in (0, 1, 30, 31):
            key.leaf = leaf
            self.assertTrue(verify(key.sign(DIGEST), public=key.public))

    def test_two_and_three_levels_with_different_widths(self):
        for trees in ((LmsKey(b"1"), LmsKey(b"2", 2)), (LmsKey(b"1", 2), LmsKey(b"2"), LmsKey(b"3", 1))):
            key = HssKey(*trees)
            signature = key.sign(DIGEST)
            self.assertTrue(verify(signature, public=key.public))
            self.assertFalse(verify(signature, sha(b"other"), key.public))
            for at in range(0, len(signature), 97):
                bad = changed(signature, at, bytes([signature[at] ^ 4]))
                self.assertFalse(verify(bad, public=key.public), at)


class Refused(unittest.TestCase):
    def test_another_message_and_another_key(self):
        self.assertFalse(verify(SIGNATURE, sha(b"other")))
        self.assertFalse(verify(SIGNATURE, public=LmsKey(b"other").public))

    def test_every_flipped_byte(self):
        for at in range(0, len(SIGNATURE), 31):
            self.assertFalse(verify(changed(SIGNATURE, at, bytes([SIGNATURE[at] ^ 0x10]))), at)
        for at in range(len(KEY.public)):
            self.assertFalse(verify(SIGNATURE, public=changed(KEY.public, at, bytes([KEY.public[at] ^ 1]))), at)

    def test_another_leaf_number(self):
        for leaf in (1, 31, 32, 1 << 31, (1 << 32) - 1):
            self.assertFalse(verify(changed(SIGNATURE, 4, u32(leaf))), leaf)

    def test_types_that_differ_from_the_keys(self):
        for kind in (0, 1, 2, 4, 5, 99):
            self.assertFalse(verify(changed(SIGNATURE, 8, u32(kind))), kind)
        for kind in (0, 4, 6, 9, 10):
            self.assertFalse(verify(changed(SIGNATURE, PATH, u32(kind))), kind)

    def test_types_that_nobody_knows(self):
        for at, values in ((4, (0, 4, 10, 1 << 31)), (8, (0, 5, 1 << 31))):
            for value in values:
                self.assertFalse(verify(SIGNATURE, public=changed(KEY.public, at, u32(value))))

    def test_levels(self):
        for levels in (0, 2, 3, 4, 1 << 31):
            self.assertFalse(verify(SIGNATURE, public=changed(KEY.public, 0, u32(levels))))
        for levels in (1, 2, 3, (1 << 32) - 1):
            self.assertFalse(verify(changed(SIGNATURE, 0, u32(levels))))

    def test_cut_and_lengthened(self):
        for size in list(range(60)) + list(range(60, len(SIGNATURE), 41)) + [len(SIGNATURE) - 1]:
            self.assertFalse(verify(SIGNATURE[:size]), size)
        self.assertFalse(verify(SIGNATURE + b"\x00"))
        self.assertFalse(verify(SIGNATURE + SIGNATURE))
        for public in (b"", KEY.public[:-1], KEY.public + b"\x00", KEY.public[4:]):
            self.assertFalse(verify(SIGNATURE, public=public))

    def test_levels_cannot_be_left_out(self):
        upper, lower = LmsKey(b"upper"), LmsKey(b"lower")
        key = HssKey(upper, lower)
        signature = key.sign(DIGEST)
        short = u32(0) + upper.sign_tree(DIGEST)
        self.assertFalse(verify(short, public=key.public))
        self.assertFalse(verify(signature[: 4 + len(upper.sign_tree(b"x")) + 56], public=key.public))


if __name__ == "__main__":
    unittest.main()

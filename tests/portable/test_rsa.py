# SPDX-License-Identifier: Apache-2.0
"""RSA PKCS#1 v1.5: what is no signature. The vectors are in test_signature_vectors.py."""

import asyncio
import unittest

from edgeagent.ota import rsa
from tests.portable.ota_support import sha
from tests.portable.signers import RsaKey, padded

KEY = RsaKey()
DIGEST = sha(b"message")
GOOD = padded(DIGEST)


def verify(signature, digest=DIGEST, public=KEY.public):
    return asyncio.run(rsa.verify(public, digest, signature))


def forged(block):
    """Signature of the key over any 256 bytes: what a verifier sees after the exponentiation."""
    assert len(block) == 256
    return KEY.power(int.from_bytes(block, "big"))


class Refused(unittest.TestCase):
    def test_signature_of_the_key_is_accepted(self):
        self.assertTrue(verify(KEY.sign(DIGEST)))
        self.assertFalse(verify(KEY.sign(DIGEST), sha(b"another")))

    def test_every_wrong_byte_of_the_padding_is_refused(self):
        # The first byte cannot be larger: the number would not be below the modulus.
        for at in list(range(1, 12)) + list(range(200, 256)):
            block = bytearray(GOOD)
            block[at] ^= 0x01
            self.assertFalse(verify(forged(bytes(block))), at)

    def test_garbage_after_the_hash_is_refused(self):
        # Bleichenbacher 2006: a parser that does not look at what follows the hash lets cube roots pass as signatures.
        info = GOOD[-51:]
        for count in (1, 8, 100, 194):
            block = b"\x00\x01" + b"\xff" * (202 - count) + b"\x00" + info + b"\x5a" * count
            self.assertFalse(verify(forged(block)), count)

    def test_short_padding_is_refused(self):
        info = GOOD[-51:]
        for count in (0, 1, 8, 201):
            block = b"\x00\x01" + b"\xff" * count + b"\x00" * (203 - count) + info
            self.assertFalse(verify(forged(block)), count)

    def test_other_structures_around_the_same_hash_are_refused(self):
        for info in (
            b"\x30\x2f\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x20",  # without the NULL
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x20",  # says SHA-512
            b"\x30\x81\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",  # BER: long length
            b"\x30\x33\x30\x0f\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x02\xaa\xbb\x04\x20",  # full NULL
            b"",
        ):
            fill = 253 - len(info) - 32
            self.assertFalse(verify(forged(b"\x00\x01" + b"\xff" * fill + b"\x00" + info + DIGEST)), info)

    def test_other_block_types_are_refused(self):
        for first in (0, 2):
            self.assertFalse(verify(forged(bytes([0, first]) + GOOD[2:])))

    def test_trivial_numbers_are_refused(self):
        for number in (0, 1, KEY.n - 1):
            self.assertFalse(verify(number.to_bytes(256, "big")))

    def test_a_number_that_is_not_below_the_modulus_is_refused(self):
        number = int.from_bytes(KEY.sign(DIGEST), "big")
        if number + KEY.n < 1 << 2048:
            self.assertFalse(verify((number + KEY.n).to_bytes(256, "big")))
        self.assertFalse(verify(KEY.public))
        self.assertFalse(verify(b"\xff" * 256))

    def test_wrong_lengths_are_refused(self):
        good = KEY.sign(DIGEST)
        for signature in (b"", good[:-1], good + b"\x00", b"\x00" + good, good[1:]):
            self.assertFalse(verify(signature))
        for digest in (b"", DIGEST[:31], DIGEST + b"\x00"):
            self.assertFalse(verify(good, digest))
        for public in (b"", KEY.public[:-1], b"\x00" + KEY.public, b"\x00" * 128 + KEY.public):
            self.assertFalse(verify(good, public=public))

    def test_a_modulus_that_only_looks_long_is_refused(self):
        for public in (bytes(256), bytes(255) + b"\x01", b"\x7f" + b"\xff" * 255):
            self.assertFalse(verify(bytes(255) + b"\x01", public=public))


if __name__ == "__main__":
    unittest.main()

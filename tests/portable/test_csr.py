# SPDX-License-Identifier: Apache-2.0
"""Keys and requests made on the device: published vectors, corners of the curve, and randomness that is none."""

import asyncio
import binascii
import hashlib
import os
import unittest

from edgeagent import csr, p256
from edgeagent.errors import ConfigError
from edgeagent.ota import ecdsa
from tests.portable.ota_support import encode, multiple, sha, turns_during
from tests.portable.test_ecdsa import PUBLIC, RFC6979

SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721  # RFC 6979, A.2.5
NONCE = 0xA6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60  # of "sample"


def run(coroutine):
    return asyncio.run(coroutine)


def der_of(pem):
    return binascii.a2b_base64("".join(pem.split("\n")[1:-2]))


class Vectors(unittest.TestCase):
    def test_public_key_of_rfc_6979(self):
        self.assertEqual(encode(*run(csr.multiply(SECRET))), PUBLIC)

    def test_nonce_of_rfc_6979(self):
        self.assertEqual(next(csr.nonces(SECRET, sha(b"sample"))), NONCE)

    def test_signatures_of_rfc_6979(self):
        for message, r, s in RFC6979:
            self.assertEqual(run(csr.sign(SECRET, sha(message))), (int(r, 16), int(s, 16)))

    def test_multiples_at_the_ends_of_the_range_are_those_of_the_plain_method(self):
        for k in (1, 2, 3, p256.N - 1, p256.N - 2, (1 << 256) - p256.N, 1 << 255, (1 << 256) - p256.N - 1):
            self.assertEqual(run(csr.multiply(k)), multiple(k))


class Made(unittest.TestCase):
    def test_key_and_request_are_one_pair_and_the_request_is_signed_with_it(self):
        key, request = run(csr.make_csr("pump-7"))
        self.assertEqual(key.decode().split("\n")[0], "-----BEGIN EC PRIVATE KEY-----")
        key = der_of(key.decode())
        secret = int.from_bytes(key[7:39], "big")
        self.assertEqual(key[-64:], encode(*multiple(secret)))
        data = der_of(request)
        self.assertEqual((data[:2], data[2] + 3), (b"\x30\x81", len(data)))
        info = data[3 : 5 + data[4]]  # what is signed: the first element, of less than 128 bytes
        self.assertIn(key[-64:], info)
        self.assertIn(b"pump-7", info)
        self.assertTrue(run(ecdsa.verify(key[-64:], sha(info), self.signature(data))))

    def signature(self, data):
        """r||s from the end of a request."""
        numbers = []
        at = data.rfind(b"\x03\x02\x03") + 3  # the end of the algorithm's name: bit string, sequence
        at += 4
        for _ in range(2):
            self.assertEqual(data[at], 2)
            size = data[at + 1]
            numbers.append(int.from_bytes(data[at + 2 : at + 2 + size], "big"))
            at += 2 + size
        self.assertEqual(at, len(data))
        return encode(numbers[0], numbers[1])

    def test_a_long_name_is_cut_to_what_a_common_name_may_hold(self):
        data = der_of(run(csr.make_csr("n" * 300))[1])
        self.assertEqual(data.count(b"n" * 64), 1)
        self.assertNotIn(b"n" * 65, data)

    def test_no_two_keys_are_the_same(self):
        keys = set()
        for _ in range(5):
            keys.add(run(csr.make_csr("x"))[0])
        self.assertEqual(len(keys), 5)

    def test_lines_are_at_most_64_characters(self):
        for text in run(csr.make_csr("x" * 64)):
            if isinstance(text, bytes):
                text = text.decode()
            self.assertTrue(max([len(line) for line in text.split("\n")]) <= 64)

    def test_other_tasks_run_meanwhile(self):
        self.assertGreaterEqual(run(turns_during(csr.make_csr("x"))), 128)


class Der(unittest.TestCase):
    def test_lengths_of_one_two_and_three_bytes(self):
        for size, head in ((0, b"\x04\x00"), (127, b"\x04\x7f"), (128, b"\x04\x81\x80"), (256, b"\x04\x82\x01\x00")):
            self.assertEqual(csr.der(4, bytes(size)), head + bytes(size))

    def test_integers_are_the_shortest_and_positive(self):
        for value, data in ((1, b"\x01"), (127, b"\x7f"), (128, b"\x00\x80"), (256, b"\x01\x00")):
            self.assertEqual(csr._integer(value), csr.der(2, data))
        self.assertEqual(csr._integer((1 << 256) - 1), b"\x02\x21\x00" + b"\xff" * 32)


class Randomness(unittest.TestCase):
    """What draws is replaced; the numbers drawn are judged."""

    def draw(self, source):
        class Fake:
            urandom = staticmethod(source)

        csr.os = Fake
        try:
            return csr.draw()
        finally:
            csr.os = os

    def test_plainly_broken_sources_are_refused(self):
        cycle = bytes(range(8))
        counter = bytes(range(4)) * 16
        halves = hashlib.sha256(b"x").digest() * 2
        few = b"".join([hashlib.sha256(bytes([n])).digest()[:2] * 4 for n in range(8)])
        for data in (bytes(64), b"\xff" * 64, b"\xa5" * 64, cycle * 8, counter, halves, few):
            self.assertRaises(ConfigError, self.draw, lambda size, data=data: data[:size])

    def test_numbers_above_the_range_are_drawn_again(self):
        rest = hashlib.sha256(b"y").digest()
        good = hashlib.sha256(b"z").digest()
        row = [p256.N.to_bytes(32, "big"), b"\xff" * 8 + good[:24], good]
        value = self.draw(lambda size: row.pop(0) + rest)
        self.assertEqual(value, int.from_bytes(good, "big"))
        self.assertEqual(row, [])

    def test_the_systems_own_source_is_taken(self):
        drawn = set()
        for _ in range(200):
            drawn.add(csr.draw())
        self.assertEqual(len(drawn), 200)
        self.assertTrue(min(drawn) > 0 and max(drawn) < p256.N)


if __name__ == "__main__":
    unittest.main()

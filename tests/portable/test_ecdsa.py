# SPDX-License-Identifier: Apache-2.0
"""P-256 verification: published vectors, and what is no signature at all."""

import asyncio
import binascii
import unittest

from edgeagent import p256
from edgeagent.ota import ecdsa
from tests.portable.ota_support import KEY, Key, encode, inverse, multiple, plus, sha, turns_during

N, P = p256.N, p256.P

# RFC 6979, A.2.5: key, and signatures over SHA-256 of the message.
X = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
Y = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
RFC6979 = (
    (
        b"sample",
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    ),
    (
        b"test",
        "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
        "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
    ),
)
PUBLIC = binascii.unhexlify(X + Y)


def verify(public, digest, signature):
    return asyncio.run(ecdsa.verify(public, digest, signature))


class Vectors(unittest.TestCase):
    def test_rfc_6979(self):
        for message, r, s in RFC6979:
            self.assertTrue(verify(PUBLIC, sha(message), binascii.unhexlify(r + s)))

    def test_signature_of_another_message_is_refused(self):
        r, s = RFC6979[0][1:]
        self.assertFalse(verify(PUBLIC, sha(b"test"), binascii.unhexlify(r + s)))

    def test_key_of_another_signer_is_refused(self):
        r, s = RFC6979[0][1:]
        self.assertFalse(verify(KEY.public, sha(b"sample"), binascii.unhexlify(r + s)))


class Malformed(unittest.TestCase):
    def setUp(self):
        self.digest = sha(b"sample")
        self.r = int(RFC6979[0][1], 16)
        self.s = int(RFC6979[0][2], 16)

    def test_every_flipped_byte_of_the_signature_is_refused(self):
        good = encode(self.r, self.s)
        for at in range(0, 64, 3):
            bad = bytearray(good)
            bad[at] ^= 1 << at % 8
            self.assertFalse(verify(PUBLIC, self.digest, bytes(bad)))

    def test_r_and_s_outside_their_range_are_refused(self):
        for r, s in ((0, self.s), (self.r, 0), (0, 0), (N, self.s), (self.r, N), (self.r, N + 1)):
            self.assertFalse(verify(PUBLIC, self.digest, encode(r, s)))

    def test_point_that_is_not_on_the_curve_is_refused(self):
        for public in (bytes(64), PUBLIC[:63] + bytes([PUBLIC[63] ^ 1]), encode(P, 0), encode(2**256 - 1, 2**256 - 1)):
            self.assertFalse(verify(public, self.digest, encode(self.r, self.s)))

    def test_wrong_lengths_are_refused(self):
        good = encode(self.r, self.s)
        for public, digest, signature in (
            (PUBLIC[:63], self.digest, good),
            (b"\x04" + PUBLIC, self.digest, good),
            (PUBLIC, self.digest[:31], good),
            (PUBLIC, self.digest, good + b"\x00"),
            (PUBLIC, self.digest, b""),
        ):
            self.assertFalse(verify(public, digest, signature))


class Corners(unittest.TestCase):
    """Where the addition formulas meet equal, opposite and infinite points."""

    def test_key_equal_to_the_generator(self):
        key = Key(1)
        self.assertTrue(verify(key.public, sha(b"a"), key.sign(sha(b"a"))))

    def test_key_opposite_to_the_generator(self):
        # G + Q is the point at infinity.
        key = Key(N - 1)
        self.assertTrue(verify(key.public, sha(b"a"), key.sign(sha(b"a"))))
        self.assertFalse(verify(key.public, sha(b"b"), key.sign(sha(b"a"))))

    def test_sum_that_is_infinity_is_refused(self):
        # u1·G + u2·Q = 0 for e = -r·d.
        r = multiple(7)[0] % N
        digest = (-r * KEY.secret % N).to_bytes(32, "big")
        self.assertFalse(verify(KEY.public, digest, encode(r, 3)))

    def test_equal_halves_double(self):
        # e = r·d gives u1·G == u2·Q.
        k = 11
        r = multiple(k)[0] % N
        e = r * KEY.secret % N
        s = inverse(k, N) * 2 * e % N
        self.assertTrue(verify(KEY.public, e.to_bytes(32, "big"), encode(r, s)))

    def test_abscissa_between_order_and_prime(self):
        # R has x = n + t, so r = t and the check has to try r + n. The key is made to fit: Q = (s·R - e·G) / r.
        t, y = 1, 0
        while y * y % P != (pow(N + t, 3, P) - 3 * (N + t) + p256.B) % P:
            t += 1
            y = pow((pow(N + t, 3, P) - 3 * (N + t) + p256.B) % P, (P + 1) // 4, P)
        s, e = 12345, int.from_bytes(sha(b"a"), "big")
        inner = plus(multiple(s, N + t, y), multiple(N - e % N))
        public = encode(*multiple(inverse(t, N), inner[0], inner[1]))
        self.assertTrue(verify(public, sha(b"a"), encode(t, s)))
        self.assertFalse(verify(public, sha(b"b"), encode(t, s)))

    def test_digest_of_zero(self):
        digest = bytes(32)
        self.assertTrue(verify(KEY.public, digest, KEY.sign(digest)))

    def test_digest_above_the_order(self):
        digest = b"\xff" * 32
        self.assertTrue(verify(KEY.public, digest, KEY.sign(digest)))


class Cooperation(unittest.TestCase):
    def test_other_tasks_run_while_it_verifies(self):
        turns = asyncio.run(turns_during(ecdsa.verify(KEY.public, sha(b"a"), KEY.sign(sha(b"a")))))
        # One turn per four bits of 256, and those of two inverses.
        self.assertGreaterEqual(turns, 64)


if __name__ == "__main__":
    unittest.main()

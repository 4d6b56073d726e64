# SPDX-License-Identifier: Apache-2.0
"""Published signatures, good and bad: RFC 8554 Appendix F, NIST CAVP for FIPS 186. Sources: signature_vectors.json."""

import asyncio
import binascii
import json
import unittest

from edgeagent.ota import ecdsa, lms, rsa

with open(__file__.rpartition("/")[0] + "/signature_vectors.json") as f:
    VECTORS = json.load(f)


def fields(vector, *names):
    return [binascii.unhexlify(vector[name]) for name in names]


class Published(unittest.TestCase):
    def nist(self, vectors, module):
        for vector in vectors:
            good = asyncio.run(module.verify(*fields(vector, "public", "digest", "signature")))
            self.assertEqual(good, vector["result"][0] == "P", vector["result"])

    def test_ecdsa_p256_of_nist(self):
        self.assertEqual(len(VECTORS["ecdsa"]), 15)
        self.nist(VECTORS["ecdsa"], ecdsa)

    def test_rsa_of_nist_with_2048_3072_and_4096_bits(self):
        self.assertEqual(sorted({len(vector["public"]) * 4 for vector in VECTORS["rsa"]}), [2048, 3072, 4096])
        self.nist(VECTORS["rsa"], rsa)

    def test_hss_of_rfc_8554(self):
        for vector in VECTORS["lms"]:
            public, message, signature = fields(vector, "public", "message", "signature")
            self.assertTrue(asyncio.run(lms.verify(public, message, signature)))
            self.assertFalse(asyncio.run(lms.verify(public, message + b" ", signature)))


if __name__ == "__main__":
    unittest.main()

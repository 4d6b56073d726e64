# SPDX-License-Identifier: Apache-2.0
"""The stored identity, with power cut at every file operation of a change."""

import binascii
import os
import unittest

from edgeagent import compat
from edgeagent.errors import ConfigError
from edgeagent.identity import Identity, pem_to_der


def pem(label, content):
    """PEM of an ASN.1 SEQUENCE around `content`."""
    der = b"\x30" + bytes((len(content),)) + content
    return "-----BEGIN %s-----\n%s-----END %s-----\n" % (label, binascii.b2a_base64(der).decode(), label)


CERT_1, KEY_1 = pem("CERTIFICATE", b"certificate 1"), pem("RSA PRIVATE KEY", b"key 1")
CERT_2, KEY_2 = pem("CERTIFICATE", b"certificate 2"), pem("RSA PRIVATE KEY", b"key 2")


class Cut(Exception):
    """Power is gone: not an error that code could handle, but close enough if nothing catches it."""


class Power:
    """Lets `allowed` file operations through, then fails every one; counts them."""

    NAMES = ("mkdir", "rename", "unlink", "rmdir")

    def __init__(self, allowed):
        self.left = allowed
        self.used = 0

    def __enter__(self):
        self.saved = {name: getattr(os, name) for name in self.NAMES}
        self.real_open = open
        compat.os = self
        compat.open = self.open_file
        return self

    def __exit__(self, kind, error, trace):
        compat.os = os
        del compat.open
        return False

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.NAMES:
            return real
        return lambda *args: self.spend(real, *args)

    def spend(self, real, *args):
        self.used += 1
        if self.left <= 0:
            raise Cut()
        self.left -= 1
        return real(*args)

    def open_file(self, path, mode="r"):
        if "w" not in mode:
            return self.real_open(path, mode)
        self.used += 1
        if self.left <= 0:
            with self.real_open(path, mode) as f:  # cut while writing: the file is there and torn
                f.write(b"\x00")
            raise Cut()
        self.left -= 1
        return self.real_open(path, mode)


class Storing(unittest.TestCase):
    def setUp(self):
        self.root = "identity-test-" + binascii.hexlify(os.urandom(6)).decode()
        compat.make_dirs(self.root)

    def tearDown(self):
        compat.remove_tree(self.root)

    def identity(self):
        return Identity(self.root, False)

    def loaded(self):
        """(thing name, certificate bytes, key bytes) as a fresh process finds them, or None."""
        found = self.identity().load()
        return found and (found[0], compat.read_file(found[1], 8192), compat.read_file(found[2], 8192))

    def expected(self, name, cert, key):
        return (name, pem_to_der(cert), pem_to_der(key))

    def test_nothing_stored_is_none(self):
        self.assertIsNone(self.identity().load())

    def test_what_was_stored_is_loaded_as_der(self):
        self.identity().store("one", CERT_1, KEY_1)
        self.assertEqual(self.loaded(), self.expected("one", CERT_1, KEY_1))

    def test_the_latest_counts_and_only_one_older_is_kept(self):
        for name in ("one", "two", "three"):
            self.identity().store(name, CERT_1, KEY_1)
        self.assertEqual(self.loaded()[0], "three")
        self.assertEqual(sorted(os.listdir(self.root + "/identity")), ["a", "b"])

    def test_garbage_is_refused_and_nothing_changes(self):
        self.identity().store("one", CERT_1, KEY_1)
        before = sorted(os.listdir(self.root + "/identity"))
        for cert, key in (("", KEY_2), (CERT_2, "key"), (CERT_2[:40], KEY_2), (CERT_2, KEY_2[30:])):
            self.assertRaises(ConfigError, self.identity().store, "two", cert, key)
        self.assertEqual(sorted(os.listdir(self.root + "/identity")), before)

    def sweep(self, before):
        """Cut power at each file operation of a change to "two"; what was there before is `before` or None."""
        operations = 0
        while True:
            compat.remove_tree(self.root)
            compat.make_dirs(self.root)
            if before:
                self.identity().store("zero", CERT_2, KEY_2)
                self.identity().store("one", CERT_1, KEY_1)
            old = self.loaded()
            power = Power(operations)
            try:
                with power:
                    self.identity().store("two", CERT_2, KEY_2)
                return operations
            except Cut:
                pass
            found = self.loaded()
            if found != old:
                self.assertEqual(found, self.expected("two", CERT_2, KEY_2))
            # The device goes on: the next change succeeds and is clean.
            self.identity().store("three", CERT_2, KEY_2)
            self.assertEqual(self.loaded()[0], "three")
            operations += 1

    def test_power_cut_anywhere_in_a_change_leaves_old_or_new(self):
        self.assertGreater(self.sweep(True), 8)

    def test_power_cut_anywhere_in_the_first_store_leaves_none_or_new(self):
        self.assertGreater(self.sweep(False), 7)

    def damage(self, name):
        self.identity().store("one", CERT_1, KEY_1)
        self.identity().store("two", CERT_2, KEY_2)
        with open(self.root + "/identity/" + name, "wb") as f:
            f.write(b"\xff\xff")

    def test_a_damaged_generation_falls_back_to_the_one_before(self):
        for name in ("b/cert", "b/key", "b/thing.json"):
            compat.remove_tree(self.root + "/identity")
            self.damage(name)
            self.assertEqual(self.loaded(), self.expected("one", CERT_1, KEY_1))
            self.identity().store("three", CERT_2, KEY_2)
            self.assertEqual(self.loaded()[0], "three")

    def test_a_record_of_another_shape_is_no_identity(self):
        shapes = b'{"name": "x"}', b'{"name": 1, "count": "1", "sha256": ""}'
        for record in (b"[]", b"null", b"7", b"\xff", b"") + shapes:
            self.identity().store("one", CERT_1, KEY_1)
            with open(self.root + "/identity/a/thing.json", "wb") as f:
                f.write(record)
            self.assertIsNone(self.loaded())
            compat.remove_tree(self.root + "/identity")

    def test_a_repr_says_nothing_of_the_contents(self):
        identity = self.identity()
        identity.store("one", CERT_1, KEY_1)
        self.assertNotIn("key 1", repr(identity) + str(identity.load()))


class Pem(unittest.TestCase):
    def test_the_first_block_becomes_der(self):
        self.assertEqual(pem_to_der(CERT_1 + CERT_2), b"\x30\x0dcertificate 1")
        self.assertEqual(pem_to_der(("subject=x\r\n" + CERT_1).encode()), b"\x30\x0dcertificate 1")

    def test_anything_else_is_a_config_error(self):
        encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
        long = pem("CERTIFICATE", b"").replace("\n", "\n" + "A" * 12000 + "\n", 1)
        for text in ("", "-----BEGIN", CERT_1[:-40], CERT_1.replace("MA", "!!"), encrypted, long, b"\xff\xfe"):
            self.assertRaises(ConfigError, pem_to_der, text)


if __name__ == "__main__":
    unittest.main()

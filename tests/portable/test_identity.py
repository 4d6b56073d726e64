# SPDX-License-Identifier: Apache-2.0
"""The stored identity, with power cut at every file operation of a change."""

import binascii
import os
import unittest

from edgeagent import compat
from edgeagent.errors import ConfigError
from edgeagent.identity import Identity, certificate_id, known, pem_to_der


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


class World(unittest.TestCase):
    def setUp(self):
        self.root = "identity-test-" + binascii.hexlify(os.urandom(6)).decode()
        compat.make_dirs(self.root)

    def tearDown(self):
        compat.remove_tree(self.root)

    def identity(self):
        return Identity(self.root, False)


class Storing(World):
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


class Trial(World):
    """A generation on trial."""

    def begin(self):
        self.identity().store("one", CERT_1, KEY_1)
        self.identity().store("two", CERT_2, KEY_2, True)

    def name(self):
        found = self.identity().load()
        return found and found[0]

    def started(self):
        return self.identity().start()[0]

    def state(self, cert=CERT_2):
        return self.identity().state(certificate_id(pem_to_der(cert)))

    def test_it_is_used_and_three_boots_are_counted(self):
        self.begin()
        for boots in (1, 2, 3):
            self.assertEqual(self.name(), "two")
            identity = self.identity()
            self.assertEqual((identity.start()[0], identity.trial), ("two", True))
            self.assertEqual(self.state(), boots)
        identity = self.identity()
        self.assertEqual((identity.start()[0], identity.trial), ("one", False))
        self.assertEqual((self.name(), self.state()), ("one", 3))

    def test_looking_counts_nothing(self):
        self.begin()
        for _ in range(9):
            self.identity().load()
        self.assertEqual(self.state(), 0)

    def test_one_that_is_confirmed_stays(self):
        self.begin()
        self.started()
        self.identity().finish()
        for _ in range(5):
            self.assertEqual(self.started(), "two")
        self.assertEqual(self.state(), "")

    def test_one_that_is_given_up_is_not_used_again_and_says_why(self):
        self.begin()
        self.identity().finish("no answer")
        self.assertEqual((self.started(), self.state()), ("one", "no answer"))
        self.identity().finish()
        self.assertEqual((self.started(), self.state()), ("one", "no answer"))

    def test_a_reason_fits_the_record_whatever_its_length(self):
        self.begin()
        self.identity().finish("\x01" * 5000)
        self.assertEqual(self.started(), "one")

    def test_the_next_one_replaces_the_one_given_up_and_never_the_one_in_force(self):
        for _ in range(3):
            self.begin()
            self.identity().finish("no")
            self.identity().store("three", CERT_2, KEY_2, True)
            self.assertEqual(self.name(), "three")
            self.identity().finish("no")
            self.assertEqual(self.name(), "one")

    def test_one_on_trial_is_replaced_before_the_one_in_force(self):
        self.begin()
        self.identity().store("three", CERT_2, KEY_2, True)
        self.identity().finish("no")
        self.assertEqual(self.name(), "one")

    def test_the_first_identity_of_a_device_may_be_on_trial(self):
        self.identity().store("one", CERT_1, KEY_1, True)
        self.assertEqual(self.name(), "one")
        self.identity().finish("no")
        self.assertIsNone(self.name())

    def test_a_boot_that_cannot_be_counted_does_not_use_it(self):
        self.begin()
        real = compat.write_atomic

        def full(*_):
            raise OSError(28)

        compat.write_atomic = full
        try:
            self.assertEqual(self.started(), "one")
        finally:
            compat.write_atomic = real

    def test_an_unknown_certificate_has_no_state(self):
        self.begin()
        self.assertIsNone(self.identity().state("00"))
        self.assertEqual(self.state(CERT_1), "")

    def cut(self, step, names):
        """Cut at every file operation of `step`: afterwards the device starts with one of `names`."""
        operations = 0
        while True:
            compat.remove_tree(self.root)
            compat.make_dirs(self.root)
            self.begin()
            self.started()
            try:
                with Power(operations):
                    step(self.identity())
                return operations
            except Cut:
                pass
            self.assertIn(self.name(), names)
            self.assertIn(self.started(), names)
            step(self.identity())
            operations += 1

    def test_power_cut_anywhere_in_a_step_leaves_the_state_before_or_after(self):
        self.assertGreater(self.cut(lambda identity: identity.start(), ("two",)), 1)
        self.assertGreater(self.cut(lambda identity: identity.finish(), ("two",)), 1)
        self.assertGreater(self.cut(lambda identity: identity.finish("no"), ("one", "two")), 1)
        store = self.cut(lambda identity: identity.store("three", CERT_2, KEY_2, True), ("one", "two", "three"))
        self.assertGreater(store, 8)


class Known(unittest.TestCase):
    """Configured or stored."""

    class Config:
        thing_name = "t"
        certificate = "cert"
        key = "key"

    def test_a_configured_identity_counts_until_one_of_the_same_name_has_followed(self):
        configured = ("t", "cert", "key")
        self.assertEqual(known(self.Config, None), configured)
        self.assertEqual(known(self.Config, ("other", "a", "b")), configured)
        self.assertEqual(known(self.Config, ("t", "a", "b")), ("t", "a", "b"))

    def test_without_a_configured_one_the_stored_counts(self):
        class Config:
            thing_name = certificate = key = None

        self.assertEqual(known(Config, ("t", "a", "b")), ("t", "a", "b"))
        self.assertIsNone(known(Config, None))


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

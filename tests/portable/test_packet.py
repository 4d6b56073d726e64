# SPDX-License-Identifier: Apache-2.0
"""The MQTT codec against packets written out by hand from the standard."""

import unittest

from edgeagent.errors import ProtocolError
from edgeagent.mqtt import packet


class Encoding(unittest.TestCase):
    def test_connect_clean(self):
        self.assertEqual(packet.connect("t", 60, True), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t")

    def test_connect_persistent_with_retained_will(self):
        self.assertEqual(
            packet.connect("t", 1200, False, ("w", b"p", 1, True)),
            b"\x10\x13\x00\x04MQTT\x04\x2c\x04\xb0\x00\x01t\x00\x01w\x00\x01p",
        )

    def test_publish_ends_where_its_payload_begins(self):
        self.assertEqual(packet.publish("a/b", 2, 0, False), b"\x30\x07\x00\x03a/b")
        self.assertEqual(packet.publish("a/b", 2, 1, True, 7), b"\x33\x09\x00\x03a/b\x00\x07")

    def test_dup_is_for_qos_1(self):
        self.assertEqual(packet.publish("a", 0, 1, False, 7, True)[0], 0x3A)
        self.assertEqual(packet.publish("a", 0, 0, False, 7, True)[0], 0x30)

    def test_remaining_length_grows_at_the_limits_of_the_standard(self):
        for size, field in (
            (127, b"\x7f"),
            (128, b"\x80\x01"),
            (16383, b"\xff\x7f"),
            (16384, b"\x80\x80\x01"),
            (2097152, b"\x80\x80\x80\x01"),
        ):
            self.assertEqual(packet.publish("a", size - 3, 0, False), b"\x30" + field + b"\x00\x01a")

    def test_subscribe_and_unsubscribe(self):
        self.assertEqual(packet.subscribe(10, [("a", 1), ("b", 0)]), b"\x82\x0a\x00\x0a\x00\x01a\x01\x00\x01b\x00")
        self.assertEqual(packet.unsubscribe(10, ["a"]), b"\xa2\x05\x00\x0a\x00\x01a")

    def test_puback(self):
        self.assertEqual(packet.puback(0x1234), b"\x40\x02\x12\x34")

    def test_text_is_utf_8(self):
        self.assertEqual(packet.publish("ä", 0, 0, False), b"\x30\x04\x00\x02\xc3\xa4")

    def test_what_cannot_be_sent_is_a_value_error(self):
        for topic, qos in (("", 0), ("a/+", 0), ("a/#", 0), ("a", 2), ("a" * 65536, 0)):
            self.assertRaises(ValueError, packet.publish, topic, 0, qos, False, 1)


class Decoding(unittest.TestCase):
    def refused(self, function, *args):
        self.assertRaises(ProtocolError, function, *args)

    def test_connack(self):
        self.assertEqual(packet.decode_connack(0, b"\x00\x00"), (False, 0))
        self.assertEqual(packet.decode_connack(0, b"\x01\x00"), (True, 0))
        self.assertEqual(packet.decode_connack(0, b"\x00\x05"), (False, 5))

    def test_malformed_connack(self):
        for flags, body in (
            (1, b"\x00\x00"),
            (0, b""),
            (0, b"\x00"),
            (0, b"\x02\x00"),
            (0, b"\x01\x05"),
            (0, b"\0\0\0"),
        ):
            self.refused(packet.decode_connack, flags, body)

    def test_acknowledgements(self):
        self.assertEqual(packet.decode_ack(4, 0, b"\x12\x34"), (0x1234, b""))
        self.assertEqual(packet.decode_ack(9, 0, b"\x00\x01\x00\x01\x80"), (1, b"\x00\x01\x80"))
        self.assertEqual(packet.decode_ack(11, 0, b"\x00\x01"), (1, b""))

    def test_malformed_acknowledgements(self):
        for kind, flags, body in (
            (4, 0, b"\x00"),
            (4, 1, b"\x00\x01"),
            (4, 0, b"\x00\x01\x00"),
            (9, 0, b"\x00\x01"),
            (9, 0, b"\x00\x01\x02"),
            (11, 0, b""),
        ):
            self.refused(packet.decode_ack, kind, flags, body)

    def test_publish(self):
        self.assertEqual(packet.decode_publish(0, b"\x00\x03a/bxyz"), ("a/b", 0, 5))
        self.assertEqual(packet.decode_publish(2, b"\x00\x03a/b\x00\x07xyz"), ("a/b", 7, 7))
        self.assertEqual(packet.decode_publish(11, bytearray(b"\x00\x01a\x00\x07")), ("a", 7, 5))

    def test_malformed_publish(self):
        for flags, body in (
            (0, b""),
            (0, b"\x00"),
            (0, b"\x00\x00"),  # empty topic
            (0, b"\x00\x02a"),  # topic cut short
            (2, b"\x00\x01a\x00"),  # packet id cut short
            (2, b"\x00\x01a\x00\x00"),  # packet id 0
            (4, b"\x00\x01a\x00\x01"),  # QoS 2
            (6, b"\x00\x01a\x00\x01"),  # QoS 3
            (8, b"\x00\x01a"),  # DUP with QoS 0
            (0, b"\x00\x01+"),
            (0, b"\x00\x01#"),
            (0, b"\x00\x01\x00"),
            (0, b"\x00\x01\xff"),  # not UTF-8
        ):
            self.refused(packet.decode_publish, flags, body)


if __name__ == "__main__":
    unittest.main()

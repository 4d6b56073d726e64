# SPDX-License-Identifier: Apache-2.0
"""The MQTT codec against packets written out by hand from the standard."""

import unittest

from edgeagent.errors import ProtocolError
from edgeagent.mqtt import packet


class Encoding(unittest.TestCase):
    def test_connect_clean(self):
        self.assertEqual(packet.connect("t", 60, True), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t")

    def test_connect_persistent(self):
        self.assertEqual(packet.connect("t", 1200, False), b"\x10\x0d\x00\x04MQTT\x04\x00\x04\xb0\x00\x01t")

    def test_connect_with_a_will_that_is_retained_and_sent_with_qos_1(self):
        self.assertEqual(
            packet.connect("t", 60, True, ("w", "gone")),
            b"\x10\x16\x00\x04MQTT\x04\x2e\x00\x3c\x00\x01t\x00\x01w\x00\x04gone",
        )

    def test_publish_ends_where_its_payload_begins(self):
        self.assertEqual(packet.publish("a/b", 2, 0, False), b"\x30\x07\x00\x03a/b")
        self.assertEqual(packet.publish("a/b", 2, 1, True, 7), b"\x33\x09\x00\x03a/b\x00\x07")

    def test_remaining_length_grows_at_the_limits_of_the_standard(self):
        for size, field in (
            (127, b"\x7f"),
            (128, b"\x80\x01"),
            (16383, b"\xff\x7f"),
            (16384, b"\x80\x80\x01"),
            (2097152, b"\x80\x80\x80\x01"),
        ):
            self.assertEqual(packet.publish("a", size - 3, 0, False), b"\x30" + field + b"\x00\x01a")

    def test_subscribe_asks_for_qos_1_if_not_told(self):
        wire = b"\x82\x0a\x00\x0a\x00\x01a\x01\x00\x01b\x00"
        self.assertEqual(packet.filters(0x82, 10, ["a", ("b", 0)]), wire)
        self.assertEqual(packet.filters(0x82, 10, [("a", 1), ("b", 0)]), wire)

    def test_unsubscribe_names_filters_only(self):
        self.assertEqual(packet.filters(0xA2, 10, ["a"]), b"\xa2\x05\x00\x0a\x00\x01a")
        self.assertEqual(packet.filters(0xA2, 10, [("a", 1)]), b"\xa2\x05\x00\x0a\x00\x01a")

    def test_packet_ids_are_two_bytes(self):
        self.assertEqual(packet.number(0x1234), b"\x12\x34")

    def test_text_is_utf_8(self):
        self.assertEqual(packet.publish("ä", 0, 0, False), b"\x30\x04\x00\x02\xc3\xa4")

    def test_what_cannot_be_sent_is_a_value_error(self):
        for topic, qos in (("", 0), ("a/+", 0), ("a/#", 0), ("a\0", 0), ("a", 2), ("a" * 65536, 0)):
            self.assertRaises(ValueError, packet.publish, topic, 0, qos, False, 1)


class Decoding(unittest.TestCase):
    def refused(self, function, *args):
        self.assertRaises(ProtocolError, function, *args)

    def test_acknowledgements(self):
        self.assertEqual(packet.decode_ack(0x40, b"\x12\x34"), (0x1234, b""))
        self.assertEqual(packet.decode_ack(0x90, b"\x00\x01\x00\x01\x80"), (1, b"\x00\x01\x80"))
        self.assertEqual(packet.decode_ack(0xB0, b"\x00\x01"), (1, b""))

    def test_malformed_acknowledgements(self):
        for head, body in (
            (0x40, b"\x00"),
            (0x41, b"\x00\x01"),
            (0x40, b"\x00\x01\x00"),
            (0x90, b"\x00\x01"),
            (0xB0, b""),
            (0x10, b"\x00\x01"),  # CONNECT
        ):
            self.refused(packet.decode_ack, head, body)

    def test_publish(self):
        self.assertEqual(packet.decode_publish(0x30, b"\x00\x03a/bxyz"), ("a/b", 0, 5))
        self.assertEqual(packet.decode_publish(0x32, b"\x00\x03a/b\x00\x07xyz"), ("a/b", 7, 7))
        self.assertEqual(packet.decode_publish(0x3B, bytearray(b"\x00\x01a\x00\x07")), ("a", 7, 5))

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
            self.refused(packet.decode_publish, 0x30 | flags, body)


if __name__ == "__main__":
    unittest.main()

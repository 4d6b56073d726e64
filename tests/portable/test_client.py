# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC110 - a condition is awaited turn by turn of the loop: the same on both runtimes
"""The MQTT session, against a server played packet by packet."""

import asyncio
import unittest

import edgeagent.mqtt.client as client_module
from edgeagent.errors import ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from tests.portable.wire import Server, outcome, play

PUBLISH_A = b"\x30\x04\x00\x01ax"
PUBLISH_A_QOS1 = b"\x32\x06\x00\x01a\x00\x09x"


class Limits(unittest.TestCase):
    """Tests that wait for a time-out shorten it."""

    def setUp(self):
        self.saved = LIMITS.REQUEST_S, LIMITS.CONNECT_S, LIMITS.MQTT_PACKET

    def tearDown(self):
        LIMITS.REQUEST_S, LIMITS.CONNECT_S, LIMITS.MQTT_PACKET = self.saved


class Connecting(Limits):
    def test_connect_returns_whether_the_session_was_kept(self):
        async def scenario():
            for session in (0, 1):
                server = Server(clean=False)
                run = await server.accept(session)
                self.assertEqual(server.kept, bool(session))
                self.assertTrue(server.client.connected)
                run.cancel()

        play(scenario())

    def refusal(self, answer, **options):
        async def scenario():
            server = Server(**options)
            connecting = asyncio.create_task(outcome(server.client.connect()))
            while server.end is None:
                await asyncio.sleep(0)
            await server.receive()
            if answer is None:
                await server.end.wait_closed()
            else:
                server.send(answer)
            error = await connecting
            self.assertFalse(server.client.connected)
            self.assertTrue(server.far.closed)
            return error

        return play(scenario())

    def test_a_return_code_is_refused_with_that_code(self):
        error = self.refusal(b"\x20\x02\x00\x05")
        self.assertIsInstance(error, Refused)
        self.assertEqual(error.code, "CONNACK_5")

    def test_a_close_before_connack_asks_about_the_certificate(self):
        error = self.refusal(None)
        self.assertIsInstance(error, TransportError)
        self.assertIn("certificate", str(error))

    def test_other_packets_than_connack_break_the_protocol(self):
        self.assertIsInstance(self.refusal(b"\x90\x03\x00\x01\x00"), ProtocolError)
        self.assertIsInstance(self.refusal(b"\x20\xff\xff\xff\xff"), ProtocolError)

    def test_a_session_cannot_survive_a_clean_connect(self):
        self.assertIsInstance(self.refusal(b"\x20\x02\x01\x00"), ProtocolError)

    def test_silence_ends_after_the_connect_limit(self):
        LIMITS.CONNECT_S = 0.05
        error = self.refusal(b"")
        self.assertIsInstance(error, TransportError)

    def test_the_connect_limit_covers_opening_the_stream(self):
        LIMITS.CONNECT_S = 0.05

        async def scenario():
            server = Server()
            server.client.open_stream = lambda: asyncio.sleep(10)
            return await outcome(server.client.connect())

        self.assertIsInstance(play(scenario()), TransportError)

    def test_tls_errors_become_transport_errors(self):
        for error in (OSError(104), ValueError("not correctly signed by the trusted CA")):

            async def scenario(error=error):
                server = Server()
                connecting = asyncio.create_task(outcome(server.client.connect()))
                while server.end is None:
                    await asyncio.sleep(0)
                await server.receive()
                server.far.fail(error)
                return await connecting

            self.assertIsInstance(play(scenario()), TransportError)


class Publishing(Limits):
    def test_qos_0_is_sent_and_forgotten(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            await server.client.publish("a", b"x", 0)
            self.assertEqual(await server.receive(), (0x30, b"\x00\x01ax"))
            run.cancel()

        play(scenario())

    def test_qos_1_returns_at_puback(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            sending = asyncio.create_task(server.client.publish("a", "x"))
            head, body = await server.receive()
            self.assertEqual((head, body[:3], body[5:]), (0x32, b"\x00\x01a", b"x"))
            self.assertFalse(sending.done())
            server.send(b"\x40\x02" + body[3:5])
            await sending
            run.cancel()

        play(scenario())

    def test_no_puback_is_a_transport_error(self):
        LIMITS.REQUEST_S = 0.05

        async def scenario():
            server = Server()
            run = await server.accept()
            error = await outcome(server.client.publish("a", b""))
            run.cancel()
            return error

        self.assertIsInstance(play(scenario()), TransportError)

    def test_the_end_of_the_link_fails_what_waits(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            sending = asyncio.create_task(outcome(server.client.publish("a", b"")))
            subscribing = asyncio.create_task(outcome(server.client.subscribe([("b", 1)])))
            await server.receive()
            await server.receive()
            await server.end.wait_closed()
            for waiting in (run, sending, subscribing):
                self.assertIsInstance(await waiting, TransportError)
            self.assertIsInstance(await outcome(server.client.publish("a", b"", 0)), TransportError)
            self.assertTrue(server.far.closed)

        play(scenario())

    def interrupted(self, session):
        """A publish whose link ends before PUBACK, and the next connection."""

        async def scenario():
            server = Server(clean=False)
            run = asyncio.create_task(outcome(await server.accept()))
            sending = asyncio.create_task(outcome(server.client.publish("a", b"x")))
            _, first = await server.receive()
            await server.end.wait_closed()
            await run
            run = await server.accept(session)
            if session:
                self.assertEqual(await server.receive(), (0x3A, first))
                server.send(b"\x40\x02" + first[3:5])
            error = await sending
            run.cancel()
            return error

        return play(scenario())

    def test_a_kept_session_gets_it_again_with_dup(self):
        self.assertIsNone(self.interrupted(1))

    def test_a_lost_session_is_told_to_the_caller(self):
        self.assertIsInstance(self.interrupted(0), TransportError)

    def test_a_large_payload_arrives_whole(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            await server.client.publish("a", bytes(range(256)) * 20, 0)
            _, body = await server.receive()
            self.assertEqual(body[3:], bytes(range(256)) * 20)
            run.cancel()

        play(scenario())

    def test_a_large_payload_cut_short_by_cancellation_ends_the_link(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            server.far.stalled = True
            sending = asyncio.create_task(server.client.publish("a", bytes(10000), 0))
            while not server.end.inbox:
                await asyncio.sleep(0)
            sending.cancel()
            return await run

        self.assertIn("cut short", str(play(scenario())))

    def test_at_most_eight_are_in_flight(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            sending = [asyncio.create_task(server.client.publish("a", b"")) for _ in range(9)]
            ids = []
            for _ in range(8):
                ids.append((await server.receive())[1][3:5])
            for _ in range(5):
                await asyncio.sleep(0)
            self.assertEqual(bytes(server.end.inbox), b"")
            server.send(b"\x40\x02" + ids[0])
            ids[0] = (await server.receive())[1][3:5]
            for number in ids:
                server.send(b"\x40\x02" + number)
            for task in sending:
                await task
            run.cancel()

        play(scenario())

    def test_a_packet_cut_short_by_cancellation_ends_the_link(self):
        async def scenario():
            server = Server(board=True)
            run = asyncio.create_task(outcome(await server.accept()))
            server.far.stalled = True
            sending = asyncio.create_task(server.client.publish("a", b"x", 0))
            while not server.far.out_buf:
                await asyncio.sleep(0)
            sending.cancel()
            return await run

        error = play(scenario())
        self.assertIsInstance(error, TransportError)
        self.assertIn("cut short", str(error))

    def test_a_server_that_does_not_read_ends_the_link(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            server.client.WRITE_S = 0.05
            server.far.stalled = True
            error = await outcome(server.client.publish("a", b"x", 0))
            await run
            return error

        self.assertIsInstance(play(scenario()), TransportError)


class Receiving(Limits):
    def test_puback_is_sent_after_the_handler_returns(self):
        for board in (False, True):

            async def scenario(board=board):
                server = Server(board=board)
                run = await server.accept()
                got = []
                release = asyncio.Event()

                async def handler(topic, payload):
                    got.append((topic, bytes(payload)))
                    await release.wait()

                server.client.on("+", handler)
                server.send(PUBLISH_A_QOS1)
                while not got:
                    await asyncio.sleep(0)
                for _ in range(5):
                    await asyncio.sleep(0)
                self.assertEqual(bytes(server.end.inbox), b"")
                release.set()
                self.assertEqual(await server.receive(), (0x40, b"\x00\x09"))
                self.assertEqual(got, [("a", b"x")])
                run.cancel()

            play(scenario())

    def test_a_message_whose_handler_fails_is_not_acknowledged(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            token = server.client.on("a", lambda topic, payload: 1 // 0)
            server.send(PUBLISH_A_QOS1)
            server.send(b"\x32\x06\x00\x01b\x00\x0ax")
            self.assertEqual(await server.receive(), (0x40, b"\x00\x0a"))
            server.client.off(token)
            server.send(PUBLISH_A_QOS1)
            self.assertEqual(await server.receive(), (0x40, b"\x00\x09"))
            run.cancel()

        play(scenario())

    def test_a_failing_handler_hides_the_message_from_no_other(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            got = []
            server.client.on("a", lambda topic, payload: 1 // 0)
            server.client.on("a", lambda topic, payload: got.append(bytes(payload)))
            server.send(PUBLISH_A)
            while not got:
                await asyncio.sleep(0)
            self.assertEqual(got, [b"x"])
            run.cancel()

        play(scenario())

    def test_a_message_over_the_cap_is_dropped_acknowledged_and_told(self):
        LIMITS.MQTT_PACKET = 1000
        for board in (False, True):

            async def scenario(board=board):
                server = Server(board=board)
                run = await server.accept()
                told = []
                got = []
                server.client.oversized.append(lambda topic, size: told.append((topic, size)))
                server.client.on("a", lambda topic, payload: got.append(bytes(payload)))
                server.send(b"\x32\xd0\x0f\x00\x01a\x00\x09" + bytes(1995))  # 2000 bytes
                server.send(PUBLISH_A)
                self.assertEqual(await server.receive(), (0x40, b"\x00\x09"))
                while not got:
                    await asyncio.sleep(0)
                self.assertEqual((told, got), ([("a", 2000)], [b"x"]))
                run.cancel()

            play(scenario())

    def test_a_message_there_is_no_memory_for_is_dropped_too(self):
        def full(size):
            if size > 1000:
                raise MemoryError
            return bytearray(size)

        async def scenario():
            server = Server(board=True)
            run = await server.accept()
            told = []
            server.client.oversized.append(lambda topic, size: told.append(size))
            client_module.bytearray = full
            server.send(b"\x32\xd0\x0f\x00\x01a\x00\x09" + bytes(1995))  # 2000 bytes
            self.assertEqual(await server.receive(), (0x40, b"\x00\x09"))
            self.assertEqual(told, [2000])
            run.cancel()

        try:
            play(scenario())
        finally:
            del client_module.bytearray

    def test_a_spare_buffer_that_is_given_up_during_a_message_leaves_it_whole(self):
        async def scenario():
            server = Server(board=True)
            run = await server.accept()
            got = []
            server.client.on("a", lambda topic, payload: got.append(bytes(payload)))
            server.client.spare = bytearray(4500)
            server.send(b"\x32\xd0\x0f\x00\x01a\x00\x09" + b"x" * 900)  # of 2000 bytes
            for _ in range(50):
                await asyncio.sleep(0)
            server.client.spare = None
            server.send(b"y" * 1095)
            self.assertEqual(await server.receive(), (0x40, b"\x00\x09"))
            self.assertEqual(got, [b"x" * 900 + b"y" * 1095])
            run.cancel()

        play(scenario())

    def test_what_no_server_may_send_ends_the_link(self):
        for data in (
            b"\x34\x06\x00\x01a\x00\x09x",  # QoS 2
            b"\x10\x02\x00\x00",  # CONNECT
            b"\x20\x02\x00\x00",  # a second CONNACK
            b"\x30\x01\x00",  # no topic
            b"\x30\xff\xff\xff\xff\x01",  # remaining length of five bytes
            b"\x90\x80\x80\x04",  # a SUBACK of 64 KB
            b"\x30\x80\x80\x80\x01",  # a PUBLISH of 2 MB
        ):

            async def scenario(data=data):
                server = Server()
                run = asyncio.create_task(outcome(await server.accept()))
                server.send(data)
                return await run

            self.assertIsInstance(play(scenario()), ProtocolError)

    def test_late_acknowledgements_are_ignored(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            got = []
            server.client.on("a", lambda topic, payload: got.append(1))
            server.send(b"\x40\x02\x00\x63" + b"\x90\x03\x00\x63\x01" + b"\xd0\x00" + PUBLISH_A)
            while not got:
                await asyncio.sleep(0)
            run.cancel()

        play(scenario())


class Subscribing(Limits):
    def test_filters_go_out_eight_in_a_packet(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            subscribing = asyncio.create_task(server.client.subscribe([("f", 1)] * 9))
            for count in (8, 1):
                head, body = await server.receive()
                self.assertEqual((head, body[2:]), (0x82, b"\x00\x01f\x01" * count))
                server.send(bytes((0x90, 2 + count)) + body[:2] + b"\x01" * count)
            await subscribing
            run.cancel()

        play(scenario())

    def answered(self, codes):
        async def scenario():
            server = Server()
            run = await server.accept()
            subscribing = asyncio.create_task(outcome(server.client.subscribe([("yes", 1), ("no", 1)])))
            _, body = await server.receive()
            server.send(bytes((0x90, 2 + len(codes))) + body[:2] + codes)
            error = await subscribing
            run.cancel()
            return error

        return play(scenario())

    def test_a_denied_filter_is_named(self):
        error = self.answered(b"\x01\x80")
        self.assertIsInstance(error, Refused)
        self.assertIn("no", str(error))
        self.assertNotIn("yes", str(error))

    def test_granted_filters_return(self):
        self.assertIsNone(self.answered(b"\x01\x00"))

    def test_a_suback_of_another_length_breaks_the_protocol(self):
        self.assertIsInstance(self.answered(b"\x01"), ProtocolError)

    def test_unsubscribe_returns_at_unsuback(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            leaving = asyncio.create_task(server.client.unsubscribe(["f"]))
            head, body = await server.receive()
            self.assertEqual((head, body[2:]), (0xA2, b"\x00\x01f"))
            server.send(b"\xb0\x02" + body[:2])
            await leaving
            run.cancel()

        play(scenario())


class KeepAlive(Limits):
    def test_a_quiet_link_is_pinged_and_an_answer_keeps_it(self):
        async def scenario():
            server = Server(keepalive=0.1)
            run = await server.accept()
            for _ in range(2):
                self.assertEqual(await server.receive(), (0xC0, b""))
                server.send(b"\xd0\x00")
            self.assertTrue(server.client.connected)
            run.cancel()

        # The keep-alive field is whole seconds on the wire; the pace here is only for the test.
        from edgeagent.mqtt import packet

        original = packet.connect
        packet.connect = lambda name, keepalive, clean, will: original(name, 1, clean)
        try:
            play(scenario())
        finally:
            packet.connect = original

    def test_no_answer_to_a_ping_ends_the_link(self):
        async def scenario():
            server = Server(keepalive=0)
            run = asyncio.create_task(outcome(await server.accept()))
            server.client.keepalive = 0.1
            error = await run
            self.assertEqual(await server.receive(), (0xC0, b""))
            self.assertEqual(bytes(server.end.inbox), b"")  # one outstanding PINGREQ, not more
            return error

        error = play(scenario())
        self.assertIsInstance(error, TransportError)
        self.assertIn("PINGRESP", str(error))


class Closing(Limits):
    def test_close_says_disconnect_and_run_ends(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            await server.client.close()
            self.assertEqual(await server.receive(), (0xE0, b""))
            self.assertTrue(server.far.closed)
            self.assertIsInstance(await run, TransportError)

        play(scenario())

    def test_a_server_that_closes_at_disconnect_does_not_become_the_reason(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            await asyncio.sleep(0)
            closing = asyncio.create_task(server.client.close())
            await server.receive()
            await server.end.wait_closed()
            await closing
            self.assertEqual(str(await run), "closed")

        play(scenario())

    def test_close_without_a_link_is_harmless(self):
        play(Server().client.close())

    def test_a_cancelled_run_closes_without_disconnect(self):
        async def scenario():
            server = Server()
            run = await server.accept()
            await asyncio.sleep(0)
            run.cancel()
            try:
                await run
            except asyncio.CancelledError:
                pass
            self.assertTrue(server.far.closed)
            self.assertEqual(bytes(server.end.inbox), b"")

        play(scenario())

    def test_the_same_client_connects_again(self):
        async def scenario():
            server = Server()
            for _ in range(3):
                run = asyncio.create_task(outcome(await server.accept()))
                await asyncio.sleep(0)
                await server.client.close()
                await run
            self.assertEqual(server.opened, 3)

        play(scenario())


class Cancelling(Limits):
    """Each call is cancelled at every turn of the loop that it takes. Afterwards there is a link that works, or none
    and its stream is closed; nothing of the call is left.
    """

    def everywhere(self, start, connected=True, **options):
        """start: client -> coroutine to be cancelled."""
        for board in (False, True):
            turn = 0
            while play(self.once(start, connected, board, turn, options)):
                turn += 1
            self.assertGreater(turn, 1)

    async def once(self, start, connected, board, turn, options):
        """Cancel after `turn` turns; False if the call had ended before."""
        server = Server(board=board, **options)
        client = server.client
        serving = asyncio.create_task(server.serve())
        run = None
        if connected:
            await client.connect()
            run = asyncio.create_task(outcome(client.run()))
            await asyncio.sleep(0)
        call = asyncio.create_task(start(client))
        for _ in range(turn):
            await asyncio.sleep(0)
        early = not call.done()
        call.cancel()
        try:
            await call
            self.assertFalse(early, "the cancellation was lost")
        except asyncio.CancelledError:
            pass
        except TransportError:
            pass
        self.assertEqual(client._open, [])
        if not client.connected:
            if run:
                self.assertIsInstance(await run, TransportError)
            await self.until(lambda: server.far is None or server.far.closed)
            self.assertIsNone(client._writer)
            await client.connect()
            run = asyncio.create_task(outcome(client.run()))
        elif run is None:
            run = asyncio.create_task(outcome(client.run()))
        self.assertIsNone(await outcome(client.publish("after", b"x")))
        self.assertEqual(client._open, [])
        await client.close()
        self.assertIsInstance(await run, TransportError)
        self.assertTrue(server.far.closed)
        serving.cancel()
        return early

    async def until(self, condition):
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0)
        self.fail("never")

    def test_connect(self):
        self.everywhere(lambda client: client.connect(), connected=False)

    def test_publish(self):
        self.everywhere(lambda client: client.publish("a", bytes(10000)))
        self.everywhere(lambda client: client.publish("a", bytes(10000), 0))

    def test_subscribe_and_unsubscribe(self):
        self.everywhere(lambda client: client.subscribe(["a"]))
        self.everywhere(lambda client: client.unsubscribe(["a"]))

    def test_request(self):
        async def ask(client):
            client.on("ask", lambda topic, payload: client.done("key", bytes(payload)))
            self.assertEqual(await client.request("ask", b"x", "key"), b"x")

        self.everywhere(ask)

    def test_close(self):
        self.everywhere(lambda client: client.close())

    def test_run(self):
        async def session(client):
            await client.connect()
            await client.run()

        for board in (False, True):
            for turn in range(40):
                play(self.once(session, False, board, turn, {}))

    def test_connect_that_sends_again(self):
        async def scenario(board, turn):
            server = Server(board=board, clean=False)
            client = server.client
            run = asyncio.create_task(outcome(await server.accept()))
            sending = [asyncio.create_task(outcome(client.publish("a", bytes(5000)))) for _ in range(3)]
            for _ in sending:
                await server.receive()
            await server.end.wait_closed()
            await run
            serving = asyncio.create_task(server.serve(1))
            call = asyncio.create_task(client.connect())
            for _ in range(turn):
                await asyncio.sleep(0)
            early = not call.done()
            call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                self.assertFalse(client.connected)
                self.assertTrue(server.far.closed or not early)
                await client.connect()
            run = asyncio.create_task(outcome(client.run()))
            for task in sending:
                self.assertIsNone(await task)
            await client.close()
            await run
            serving.cancel()
            return early

        for board in (False, True):
            turn = 0
            while play(scenario(board, turn)):
                turn += 1
            self.assertGreater(turn, 5)


class Reconnecting(Limits):
    def test_what_waits_to_write_on_the_old_link_does_not_write_on_the_new(self):
        async def scenario():
            server = Server(clean=False)
            client = server.client
            client.WRITE_S = 0.1
            run = asyncio.create_task(outcome(await server.accept()))
            server.far.stalled = True
            sending = [asyncio.create_task(outcome(client.publish("a", bytes((n,)) * 5000))) for n in range(3)]
            while not server.end.inbox:
                await asyncio.sleep(0)
            await server.end.wait_closed()
            await run
            run = asyncio.create_task(outcome(await server.accept(1)))
            for n in range(3):
                head, body = await server.receive()
                self.assertEqual((head, body[5]), (0x3A, n))
                server.send(b"\x40\x02" + body[3:5])
            for task in sending:
                self.assertIsNone(await task)
            await asyncio.sleep(0.2)  # longer than the stalled writer of the old link has
            self.assertTrue(client.connected)
            self.assertEqual(bytes(server.end.inbox), b"")
            await client.close()
            await run

        play(scenario())

    def test_publishes_without_a_link_leave_nothing_behind(self):
        async def scenario():
            client = Server().client
            for _ in range(3):
                error = await outcome(client.publish("a", b"", 0))
            self.assertEqual(str(error), "not connected")
            return client._error

        error = play(scenario())
        self.assertIsNone(getattr(error, "__traceback__", None))

    def test_packet_ids_of_open_exchanges_are_not_used_again(self):
        async def scenario():
            server = Server()
            run = asyncio.create_task(outcome(await server.accept()))
            first = asyncio.create_task(server.client.publish("a", b""))
            taken = (await server.receive())[1][3:5]
            server.client._id = (taken[0] << 8 | taken[1]) - 1  # as after 65535 more
            second = asyncio.create_task(server.client.publish("a", b""))
            other = (await server.receive())[1][3:5]
            self.assertNotEqual(taken, other)
            for number in (other, taken):
                server.send(b"\x40\x02" + number)
            await first
            await second
            server.client._id = 65535
            asyncio.create_task(outcome(server.client.publish("a", b"")))
            self.assertEqual((await server.receive())[1][3:5], b"\0\1")  # 0 is none
            await server.client.close()
            await run

        play(scenario())

    def test_a_handler_that_outlives_its_link_does_not_acknowledge_on_the_next(self):
        async def scenario():
            server = Server(clean=False)
            go = asyncio.Event()

            async def stubborn(topic, payload):
                while not go.is_set():
                    try:
                        await go.wait()
                    except asyncio.CancelledError:
                        pass

            server.client.on("a", stubborn)
            run = asyncio.create_task(outcome(await server.accept()))
            server.send(PUBLISH_A_QOS1)
            for _ in range(10):
                await asyncio.sleep(0)
            run.cancel()
            try:
                await run
            except asyncio.CancelledError:
                pass
            run = asyncio.create_task(outcome(await server.accept(1)))
            go.set()
            self.assertIsNone(await outcome(server.client.publish("b", b"", 0)))
            self.assertEqual((await server.receive())[0], 0x30)
            await server.client.close()
            self.assertEqual(bytes(server.end.inbox), b"\xe0\x00")
            await run

        play(scenario())


class LastWill(Limits):
    def test_it_is_in_the_connect_packet(self):
        async def scenario():
            server = Server(will=("gone", "thing-1"))
            connecting = asyncio.create_task(server.client.connect())
            while server.end is None:
                await asyncio.sleep(0)
            _, body = await server.receive()
            server.send(b"\x20\x02\x00\x00")
            await connecting
            await server.client.close()
            return body

        body = play(scenario())
        self.assertEqual(body[7], 0x2E)  # will, retained, QoS 1, clean session
        self.assertEqual(body[10:], b"\0\x07thing-1" + b"\0\x04gone" + b"\0\x07thing-1")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""Requests on reserved topics: which answer belongs to whom, and every way to get none."""

import asyncio
import json
import unittest

from edgeagent.errors import ProtocolError, Refused, TransportError
from edgeagent.limits import LIMITS
from edgeagent.mqtt import packet
from edgeagent.mqtt.rpc import Requests
from tests.portable.wire import Server, outcome, play

TOPIC = "$aws/things/thing-1/jobs/start-next"


class Service(Server):
    """A server that answers when told to."""

    async def request(self):
        """The next request: (topic, body)."""
        head, body = await self.receive()
        topic, _, at = packet.decode_publish(head, body)
        return topic, json.loads(body[at:])

    def answer(self, topic, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send(packet.publish(topic, len(data), 0, False) + data)


class Calling(unittest.TestCase):
    def setUp(self):
        self.saved = LIMITS.MQTT_PACKET

    def tearDown(self):
        LIMITS.MQTT_PACKET = self.saved

    def play(self, scenario):
        """scenario(service, requests) on a running connection."""

        async def whole():
            service = Service()
            run = asyncio.create_task(outcome(await service.accept()))
            result = await scenario(service, Requests(service.client))
            run.cancel()
            return result

        return play(whole())

    def test_the_accepted_answer_with_the_token_is_returned(self):
        async def scenario(service, requests):
            call = asyncio.create_task(requests.call(TOPIC, {"a": 1}))
            topic, body = await service.request()
            self.assertEqual((topic, body["a"]), (TOPIC, 1))
            self.assertTrue(0 < len(body["clientToken"]) <= 64)
            service.answer(TOPIC + "/accepted", {"clientToken": "another", "n": 1})
            service.answer(TOPIC + "/accepted", {"clientToken": body["clientToken"], "n": 2})
            service.answer(TOPIC + "/accepted", {"clientToken": body["clientToken"], "n": 3})
            self.assertEqual((await call)["n"], 2)

        self.play(scenario)

    def test_answers_in_any_order_find_their_requests(self):
        async def scenario(service, requests):
            calls = [asyncio.create_task(requests.call(TOPIC, {"n": n})) for n in range(3)]
            bodies = []
            for _ in range(3):
                bodies.append((await service.request())[1])
            for body in (bodies[2], bodies[0], bodies[1]):
                service.answer(TOPIC + "/accepted", body)
            for n in range(3):
                self.assertEqual((await calls[n])["n"], n)

        self.play(scenario)

    def rejected(self, body):
        async def scenario(service, requests):
            call = asyncio.create_task(outcome(requests.call(TOPIC, {})))
            _, request = await service.request()
            body["clientToken"] = request["clientToken"]
            service.answer(TOPIC + "/rejected", body)
            return await call

        error = self.play(scenario)
        self.assertIsInstance(error, Refused)
        return error

    def test_rejected_raises_the_code_of_each_service(self):
        jobs = self.rejected({"code": "VersionMismatch", "message": "m", "executionState": {"versionNumber": 3}})
        self.assertEqual((jobs.code, jobs.body["executionState"]), ("VersionMismatch", {"versionNumber": 3}))
        self.assertEqual(self.rejected({"code": 404, "message": "m"}).code, "404")
        provisioning = self.rejected({"statusCode": 400, "errorCode": "InvalidTemplate", "errorMessage": "no"})
        self.assertEqual((provisioning.code, str(provisioning)), ("InvalidTemplate", "InvalidTemplate: no"))

    def test_without_token_the_first_answer_counts_and_none_is_sent(self):
        async def scenario(service, requests):
            call = asyncio.create_task(requests.call(TOPIC, {}, token=False))
            _, body = await service.request()
            self.assertEqual(body, {})
            service.answer(TOPIC + "/accepted", {"n": 1})
            self.assertEqual(await call, {"n": 1})

        self.play(scenario)

    def test_no_answer_is_a_transport_error(self):
        async def scenario(service, requests):
            call = asyncio.create_task(outcome(requests.call(TOPIC, {}, timeout=0.05)))
            await service.request()
            return await call

        self.assertIsInstance(self.play(scenario), TransportError)

    def test_the_end_of_the_link_is_told_at_once(self):
        async def scenario(service, requests):
            call = asyncio.create_task(outcome(requests.call(TOPIC, {})))
            await service.request()
            await service.end.wait_closed()
            return await call

        error = self.play(scenario)
        self.assertIsInstance(error, TransportError)
        self.assertIn("closed by the server", str(error))

    def test_an_answer_that_is_no_object_breaks_the_protocol(self):
        for data in (b"[1]", b"{", b"", b"\xff"):

            async def scenario(service, requests, data=data):
                call = asyncio.create_task(outcome(requests.call(TOPIC, {})))
                await service.request()
                service.answer(TOPIC + "/accepted", data)
                return await call

            self.assertIsInstance(self.play(scenario), ProtocolError)

    def test_an_answer_over_the_receive_cap_is_refused_with_its_size(self):
        async def scenario(service, requests):
            call = asyncio.create_task(outcome(requests.call(TOPIC, {})))
            await service.request()
            service.answer(TOPIC + "/accepted", b" " * 10000)
            return await call

        LIMITS.MQTT_PACKET = 1000
        error = self.play(scenario)
        self.assertIsInstance(error, Refused)
        self.assertEqual(error.code, "ReplyTooLarge")

    def test_nothing_is_left_behind_by_calls_that_failed(self):
        async def scenario(service, requests):
            for _ in range(3):
                call = asyncio.create_task(outcome(requests.call(TOPIC, {}, timeout=0.02)))
                await service.request()
                await call
            client = service.client
            self.assertEqual((client._open, requests._topics), ([], {}))

        self.play(scenario)


if __name__ == "__main__":
    unittest.main()

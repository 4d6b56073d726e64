# SPDX-License-Identifier: Apache-2.0
"""Bad input from the service, as bytes through the real request layer: every job ends, and the next one runs."""

import asyncio
import json
import unittest

from edgeagent.errors import Refused, TransportError
from edgeagent.mqtt.rpc import Requests
from tests.portable.job_service import TERMINAL, Device, Quick, live

_PREFIX = "$aws/things/t/jobs/"


class WireDevice(Device):
    """A Device whose requests are bytes: `spoil(rest, payload)` may change an answer, or give several."""

    def __init__(self, service, spoil):
        self.spoil = spoil
        self.replies = None
        self.waiting = {}
        super().__init__(service)
        self.requests = Requests(self)

    def on(self, topic_filter, handler):
        if topic_filter == "$aws/#":
            self.replies = handler
        else:
            super().on(topic_filter, handler)

    def done(self, key, answer):
        if key in self.waiting:
            self.waiting[key] = answer

    async def request(self, topic, data, key, seconds):
        await asyncio.sleep(0)
        rest = topic[len(_PREFIX) :]
        self.calls.append(rest)
        body = json.loads(data)
        verb = "/accepted"
        try:
            answer = self.service.answer(rest, body)
        except Refused as error:
            verb = "/rejected"
            answer = dict(error.body, code=error.code, message=str(error))
        answer["clientToken"] = body["clientToken"]
        self.waiting[key] = TransportError("no answer")
        payloads = self.spoil(rest, json.dumps(answer).encode())
        for payload in payloads if isinstance(payloads, list) else [payloads]:
            if isinstance(payload, int):
                for function in self.oversized:
                    function(topic + verb, payload)
            else:
                self.replies(topic + verb, bytearray(payload))
        found = self.waiting.pop(key)
        if isinstance(found, Exception):
            raise found
        return found


class Hostile(Quick):
    def run_both(self, spoil, handler=None):
        """Job "bad" and then job "good" on a device whose answers are spoilt; (status, details) of "bad"."""

        async def work(job):
            return {"id": job.id}

        device = WireDevice(self.service, spoil)
        device.handlers.register("work", handler or work)
        self.service.add("bad", "@DOCUMENT@")
        self.service.add("good", {"operation": "work"})
        live(device, lambda d: d.idle())
        self.assertEqual(len(self.service.terminal("bad")), 1)
        self.assertEqual(self.service.terminal("good"), ["SUCCEEDED"])
        return self.service.status("bad"), self.service.details("bad")

    def document(self, raw):
        """What becomes of a job whose document is these bytes."""
        self.setUp()
        return self.run_both(lambda rest, payload: payload.replace(b'"@DOCUMENT@"', raw))

    def test_documents_of_every_wrong_shape_are_rejected_with_a_reason(self):
        for raw in (
            b"null",
            b"[]",
            b"7",
            b'"work"',
            b"true",
            b"{}",
            b"1e999",
            b'{"operation":null}',
            b'{"operation":["work"]}',
            b'{"operation":{"operation":"work"}}',
            b'{"operation":"../work"}',
            b'{"operation":"runner"}',
            b'{"operation":"__init__"}',
            b'{"operation":"work","condition":{}}',
            b'{"operation":"work","condition":"' + b"(" * 200 + b'"}',
            b'{"operation":"work","stepTimeoutInMinutes":1e9}',
            b'{"operation":"work","stepTimeoutInMinutes":"5"}',
            b'{"operation":"work","x":"' + b"y" * 9000 + b'"}',
            b'{"operation":"work","x":[' + b"0," * 5000 + b"0]}",
            b'{"steps":' + b"[" * 50 + b"]" * 50 + b"}",
        ):
            status, details = self.document(raw)
            self.assertEqual(status, "REJECTED", raw[:60])
            self.assertTrue(details["reason"], raw[:60])

    def test_documents_that_are_no_json_or_no_text_are_rejected(self):
        for raw in (b"{", b"nonsense", b'"\xff\xfe"', b'{"operation":"wo\xc3', b'{"operation":"work"', b"\x00"):
            self.assertEqual(self.document(raw)[0], "REJECTED", raw)

    def test_a_document_nested_beyond_stack_or_heap_is_rejected(self):
        for depth in (100, 2000, 8000):
            for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
                raw = b'{"operation":"work","x":' + opening * depth + b"0" + closing * depth + b"}"
                status = self.document(raw)[0]
                self.assertIn(status, ("REJECTED", "SUCCEEDED") if depth == 100 else ("REJECTED",))

    def test_unknown_members_are_no_reason_to_refuse(self):
        raw = b'{"operation":"work","new":{"a":[1,2,{"b":null}]},"x":1.5}'
        self.assertEqual(self.document(raw)[0], "SUCCEEDED")

    def test_a_document_over_the_receive_cap_is_rejected(self):
        def spoil(rest, payload):
            return 70000 if b"@DOCUMENT@" in payload else payload

        self.assertEqual(self.run_both(spoil)[0], "REJECTED")

    def test_answers_of_every_wrong_shape_are_survived_until_a_good_one_comes(self):
        for raw in (
            b"",
            b"null",
            b"[]",
            b"7",
            b"{",
            b"\xff\xfe\x00",
            b'{"execution":7}',
            b'{"execution":[1]}',
            b'{"execution":{"jobId":7}}',
            b'{"execution":{"jobId":"a/b","executionNumber":1,"status":"IN_PROGRESS"}}',
            b'{"execution":{"jobId":"bad","executionNumber":"1","status":"IN_PROGRESS"}}',
            b'{"execution":{"jobId":"bad","executionNumber":1,"status":1}}',
            b"[" * 9000,
        ):
            self.setUp()
            wrong = [3]

            def spoil(rest, payload, raw=raw, wrong=wrong):
                payload = payload.replace(b'"@DOCUMENT@"', b'{"operation":"work"}')
                if not wrong[0]:
                    return payload
                wrong[0] -= 1
                token = json.loads(payload)["clientToken"].encode()
                return raw.replace(b'{"execution"', b'{"clientToken":"' + token + b'","execution"')

            self.assertIn(self.run_both(spoil)[0], ("SUCCEEDED", "REJECTED"), raw[:40])

    def test_refusals_of_every_wrong_shape_are_survived(self):
        for raw in (b"{}", b'{"code":7}', b'{"code":{"a":1},"message":[1]}', b'{"code":"Strange","executionState":7}'):
            self.setUp()
            wrong = [2]
            answer = self.service.answer

            def refuse(rest, body, answer=answer, wrong=wrong):
                if rest == "bad/update" and wrong[0]:
                    wrong[0] -= 1
                    raise Refused("planned")
                return answer(rest, body)

            def spoil(rest, payload, raw=raw):
                payload = payload.replace(b'"@DOCUMENT@"', b'{"operation":"work"}')
                if b"planned" in payload:
                    body = json.loads(raw)
                    body["clientToken"] = json.loads(payload)["clientToken"]
                    payload = json.dumps(body).encode()
                return payload

            self.service.answer = refuse
            self.assertEqual(self.run_both(spoil)[0], "SUCCEEDED", raw)

    def test_answers_that_come_twice_late_or_for_others_run_nothing_twice(self):
        seen = []
        ran = []

        def spoil(rest, payload):
            payload = payload.replace(b'"@DOCUMENT@"', b'{"operation":"work"}')
            seen.append(payload)
            return seen[-3:] + [payload, payload]  # of earlier requests first

        async def work(job):
            ran.append(job.id)
            await job.progress(50)

        self.assertEqual(self.run_both(spoil, work)[0], "SUCCEEDED")
        self.assertEqual(ran, ["bad", "good"])

    def test_notifications_of_any_content_only_wake(self):
        ran = []

        async def work(job):
            ran.append(job.id)
            for payload in (b"", b"{", b"\xff", b'{"execution":{"jobId":"other"}}', b"[" * 5000):
                device._notified(_PREFIX + "notify-next", bytearray(payload))
                await asyncio.sleep(0.002)

        def spoil(rest, payload):
            return payload.replace(b'"@DOCUMENT@"', b'{"operation":"work"}')

        device = WireDevice(self.service, spoil)
        device.handlers.register("work", work)
        self.service.add("bad", "@DOCUMENT@")
        live(device, lambda d: d.idle())
        self.assertEqual((ran, self.service.status("bad")), (["bad"], "SUCCEEDED"))
        self.assertIn("SUCCEEDED", TERMINAL)


if __name__ == "__main__":
    unittest.main()

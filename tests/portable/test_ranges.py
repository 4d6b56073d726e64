# SPDX-License-Identifier: Apache-2.0
"""Blocks over HTTPS: ranges, servers that do not keep to them, and links that break."""

import asyncio
import unittest

from edgeagent import clock, compat
from edgeagent.errors import Refused, TransportError, UpdateError
from edgeagent.jobs.journal import Journal
from edgeagent.ota import ranges
from tests.portable.ota_support import BLOCK, fresh, pattern, refusal

SIZE = 20 * BLOCK + 9  # two requests
URL = "https://objects.example/bucket/key?X-Amz-Signature=Secret"


class Config:
    ca = "ca.der"
    https_ca = None


class Server:
    """A port and an agent: an HTTP server of one object, of which each connection may misbehave."""

    def __init__(self, data):
        self.data = data
        self.config = Config()
        self.port = self.client = self
        self.pause = 0
        self.connected = asyncio.Event()
        self.connected.set()
        self.requests = []  # (path, {header: value})
        self.closes = 0
        # How to misbehave:
        self.answers = []  # of the next connections: whole answers
        self.ranges = True
        self.etag = '"Tag-1"'
        self.break_after = 0  # bytes of a body, then the connection is lost
        self.breaks = 0
        self.change = lambda head: head
        self.sent = 0
        self.piece = 1 << 20  # bytes that come at once, each after so many milliseconds of `time`
        self.pause_ms = self.time = 0

    # what ranges.py knows of the time, if a test lets it

    def ticks(self):
        return self.time

    def elapsed_ms(self, since):
        return self.time - since

    async def close(self):
        self.closes += 1

    async def open_stream(self, *arguments):
        self.arguments = arguments
        stream = Stream(self)
        return stream, stream

    def answer(self, request):
        lines = request.decode().split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        self.requests.append((lines[0].split(" ")[1], headers))
        if self.answers:
            return self.answers.pop(0)
        wanted = headers.get("range", "")[6:]
        first, _, last = wanted.partition("-")
        whole = not self.ranges or headers.get("if-range", self.etag) != self.etag
        body = self.data if whole else self.data[int(first) : int(last) + 1]
        head = "HTTP/1.1 %s\r\nContent-Length: %d\r\nETag: %s\r\n" % (
            "200 OK" if whole else "206 Partial Content",
            len(body),
            self.etag,
        )
        if not whole:
            head += "Content-Range: bytes %d-%d/%d\r\n" % (int(first), int(first) + len(body) - 1, len(self.data))
        if self.breaks:
            self.breaks -= 1
            body = body[: self.break_after]
        return self.change(head).encode() + b"\r\n" + body


class Stream:
    def __init__(self, server):
        self.server = server
        self.request = b""
        self.rest = None

    def write(self, data):
        self.request += bytes(data)

    async def drain(self):
        pass

    async def read(self, size):
        await asyncio.sleep(0)
        if self.rest is None:
            self.rest = memoryview(self.server.answer(self.request))
        self.server.time += self.server.pause_ms
        size = min(size, self.server.piece)
        piece = bytes(self.rest[:size])
        self.rest = self.rest[size:]
        self.server.sent += len(piece)
        return piece

    def close(self):
        pass

    async def wait_closed(self):
        pass


class Ranges(unittest.TestCase):
    def setUp(self):
        self.data = pattern(SIZE)
        self.part = ranges.PART
        ranges.PART = 16
        self.server = Server(self.data)
        self.got = []

    def tearDown(self):
        ranges.PART = self.part

    def take(self, number, data):
        if data != self.data[number * BLOCK : (number + 1) * BLOCK]:
            raise UpdateError("block-hash", str(number))
        self.got.append(number)

    def fetch(self, start=0, size=SIZE, have=None, tick=None, rate=0, url=URL):
        self.got = []
        asyncio.run(ranges.fetch(self.server, url, start, size, self.take, have, tick, rate))

    def refused(self, code, text="", **case):
        said = refusal(self, code, self.fetch, **case)
        self.assertIn(text, said)
        self.assertTrue("Secret" not in said)

    def asked(self):
        return [headers.get("range") for _, headers in self.server.requests]

    def test_blocks_come_in_order_by_parts(self):
        self.fetch()
        self.assertEqual(self.got, list(range(21)))
        self.assertEqual(self.asked(), ["bytes=0-65535", "bytes=65536-%d" % (SIZE - 1)])

    def test_the_server_is_verified_and_the_url_is_sent_as_it_is(self):
        self.fetch()
        self.assertEqual(self.server.arguments, ("objects.example", 443, "objects.example", "ca.der", "", ""))
        self.assertEqual(self.server.requests[0][0], "/bucket/key?X-Amz-Signature=Secret")

    def test_only_missing_blocks_are_asked_for(self):
        have = bytearray(b"\xff" * 3)
        have[0] = 0b11100111
        have[1] = 0
        self.fetch(have=have)
        self.assertEqual(self.got, [3, 4] + list(range(8, 16)))
        self.assertEqual(self.asked(), ["bytes=12288-20479", "bytes=32768-65535"])
        self.assertEqual(have[0] & have[1], 255)

    def test_a_part_of_a_larger_object(self):
        self.server.data = b"x" * 777 + self.data + b"more"
        self.fetch(start=777)
        self.assertEqual(len(self.got), 21)

    def test_lost_connection_goes_on_after_the_last_whole_block(self):
        self.server.break_after = 10 * BLOCK + 5
        self.server.breaks = 1
        self.fetch()
        self.assertEqual(self.got, list(range(21)))
        self.assertEqual(self.asked()[1], "bytes=40960-%d" % (SIZE - 1))
        self.assertEqual(self.server.requests[1][1]["if-range"], '"Tag-1"')

    def test_object_that_changes_meanwhile_is_noticed(self):
        def change(head):
            self.server.etag = '"Tag-2"'
            return head

        self.server.change = change
        self.refused("transfer", "changed")
        self.assertEqual(len(self.server.requests), 2)

    def test_server_without_ranges_is_read_through(self):
        self.server.ranges = False
        have = bytearray(3)
        have[0] = 0b00000111
        self.fetch(have=have)
        self.assertEqual(self.got, list(range(3, 21)))
        self.assertEqual(len(self.server.requests), 1)

    def test_whole_object_of_another_size_is_refused(self):
        self.server.ranges = False
        self.server.data = self.data[:-1]
        self.refused("size")
        self.assertEqual(self.got, [])

    def test_object_without_end_is_refused_unread(self):
        self.server.ranges = False
        self.server.change = lambda head: head.replace("Length: %d" % SIZE, "Length: 99999999")
        self.refused("size")
        self.assertTrue(self.server.sent <= 2048)

    def test_another_range_than_asked_for_is_refused(self):
        for old, new in (("bytes 0-", "bytes 1-"), ("-65535/", "-1048574/"), ("Content-Range", "X-Range")):
            self.server.change = lambda head, old=old, new=new: head.replace(old, new)
            self.refused("transfer", "range")
            self.assertEqual(self.got, [])

    def test_refusals_end_it_at_once_and_say_why(self):
        for status in ("404 Not Found", "410 Gone", "416 No"):
            self.server.requests = []
            self.server.answers = [("HTTP/1.1 %s\r\n\r\n<Code>NoSuchKey</Code>" % status).encode()]
            self.refused("transfer", "HTTP %s NoSuchKey" % status[:3])
            self.assertEqual(len(self.server.requests), 1)

    def test_passing_refusal_is_tried_again(self):
        self.server.answers = [b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"]
        self.fetch()
        self.assertEqual(len(self.got), 21)

    def test_redirects_are_followed_twice_and_only_to_https(self):
        def to(url):
            return ("HTTP/1.1 307 Temporary Redirect\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % url).encode()

        self.server.answers = [to("https://Other.example/A"), to("https://other.example/B?Sig=Cc")]
        self.fetch(size=BLOCK)
        self.assertEqual(self.server.requests[-1][0], "/B?Sig=Cc")
        self.server.answers = [to("https://other.example/A")] * 3
        self.refused("transfer", "redirected")
        self.server.answers = [to("http://other.example/A")]
        self.refused("transfer", "redirected")

    def test_the_mqtt_clients_buffer_is_left_alone(self):
        self.server.spare = bytearray(BLOCK + 400)  # into which it receives again when a request takes long
        self.fetch()
        self.assertEqual(bytes(self.server.spare), bytes(BLOCK + 400))

    def test_full_file_system_is_told(self):
        def sink(number, data):
            raise OSError(28)

        self.take = sink
        self.refused("storage")

    def test_rate_is_kept(self):
        start = clock.ticks()
        self.fetch(size=20 * BLOCK, rate=400000)
        self.assertTrue(clock.elapsed_ms(start) >= 190)

    def test_progress_is_told_after_each_part(self):
        ticks = []

        async def tick(percent):
            ticks.append((percent, self.server.pause))

        self.fetch(tick=tick)
        self.assertEqual(ticks, [(76, 0), (100, 0)])

    def in_other_time(self, action, *arguments, **named):
        """Call a function while sleeping takes none, and time passes at the server only."""
        saved = ranges.asyncio.sleep, ranges.clock
        self.slept = []

        async def sleep(seconds):
            self.slept.append(seconds)
            self.server.time += int(seconds * 1000)
            await saved[0](0)

        ranges.asyncio.sleep, ranges.clock = sleep, self.server
        try:
            action(*arguments, **named)
        finally:
            ranges.asyncio.sleep, ranges.clock = saved

    def waits(self, answer):
        """Seconds between the tries that an answer gets, always the same."""
        self.server.requests = []
        self.server.answers = [answer] * 20
        self.in_other_time(self.refused, "transfer")
        self.assertEqual(len(self.server.requests), 7)
        return [seconds for seconds in self.slept if seconds]

    def test_silent_death_of_the_server_ends_it_in_bounded_time(self):
        self.assertTrue(sum(self.waits(b"")) < 300)

    def test_busy_server_is_waited_for_for_minutes_with_growing_waits(self):
        for status in ("429 Too Many Requests", "503 Slow Down"):
            waits = self.waits(("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status).encode())
            self.assertEqual(len(waits), 6)
            for n in range(6):
                self.assertTrue(2 << n <= waits[n] <= 4 << n, str(waits))

    def test_devices_that_were_refused_together_do_not_come_back_together(self):
        answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(len({sum(self.waits(answer)) for _ in range(4)}), 4)

    def test_wait_that_the_server_asks_for_is_kept_within_reason(self):
        for asked, least, most in (("200", 200, 200), ("999999", 300, 300), ("-1", 2, 4), ("Wed, 21 Oct 2026", 2, 4)):
            answer = "HTTP/1.1 503 Slow Down\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % asked
            first = self.waits(answer.encode())[0]
            self.assertTrue(least <= first <= most, "%s: %r" % (asked, first))

    def test_wait_that_a_server_asked_for_is_for_once(self):
        self.server.answers = [b"HTTP/1.1 503 Slow Down\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n", b""]
        self.in_other_time(self.fetch)
        first, second = [seconds for seconds in self.slept if seconds]
        self.assertTrue(first == 90 and second < 10)

    def test_of_a_whole_object_the_rest_that_nobody_wants_is_not_read(self):
        self.server.ranges = False
        self.server.data = self.data + bytes(50 * BLOCK)
        have = bytearray(3)
        have[1] = have[2] = 255  # all but the first eight blocks
        self.fetch(have=have)
        self.assertEqual((self.got, len(self.server.requests)), (list(range(8)), 1))
        self.assertTrue(self.server.sent < 11 * BLOCK)
        self.server.sent = 0
        self.fetch()
        self.assertEqual(self.got, list(range(21)))
        self.assertTrue(self.server.sent < 24 * BLOCK)

    def test_tag_that_would_be_another_header_is_not_sent_back(self):
        for tag in ('"x"\nX-Evil: 1', '"x\ty"', '"\xe9"', '"x\x7f"', 'W/"x"'):
            self.server.requests = []
            self.server.etag = tag
            self.fetch()
            self.assertEqual(self.got, list(range(21)))
            self.assertEqual([headers.get("if-range") for _, headers in self.server.requests], [None, None])

    def test_answers_that_are_no_text_have_a_code_all_the_same(self):
        bad = b"HTTP/1.1 302 Found\r\nLocation: https://x/\xff\xfe\r\nContent-Length: 0\r\n\r\n"
        self.server.answers = [bad] * 20
        self.in_other_time(self.refused, "transfer", "HTTP 302")
        bad = b"HTTP/1.1 404 Not Found\r\n\r\n<Code>No\xff\n\x1bSuch\xc3\xa4Key</Code>"
        self.server.answers = [bad]
        self.refused("transfer", "HTTP 404 NoSuchKey")

    def test_body_that_trickles_ends_it_in_bounded_time(self):
        self.server.piece, self.server.pause_ms = 1, 1
        self.server.change = self.slowly
        self.in_other_time(self.refused, "transfer", "too slow")
        self.assertEqual(self.got, [])
        self.assertEqual(len(self.server.requests), 7)
        self.assertTrue(self.server.time < 7 * 180000)

    def slowly(self, head):
        """From now on a byte every 18 s."""
        self.server.pause_ms = 18000
        self.server.time -= (len(head) + 2) * 18000  # which comes at once
        return head

    def test_body_before_the_part_may_not_trickle_either(self):
        self.server.ranges = False
        self.server.data = bytes(3 * BLOCK) + self.data
        self.server.piece = 1
        self.server.change = self.slowly
        self.in_other_time(self.refused, "transfer", "too slow", start=3 * BLOCK)
        self.assertEqual(len(self.server.requests), 7)

    def test_slow_line_is_none_that_trickles(self):
        self.server.piece, self.server.pause_ms = 1024, 29000
        self.in_other_time(self.fetch)
        self.assertEqual(self.got, list(range(21)))

    def test_low_rate_is_none_that_trickles(self):
        self.in_other_time(self.fetch, size=3 * BLOCK, rate=10)
        self.assertEqual(self.got, [0, 1, 2])
        self.assertTrue(sum(self.slept) > 1000)
        self.assertEqual(len(self.server.requests), 1)


class Requests:
    """Of an agent: the job's document, with what `sign` makes of each URL for each who asks."""

    def __init__(self, sign):
        self.sign = sign
        self.asked = []

    async def call(self, topic, body):
        self.asked.append((topic, body))
        urls = {"envelope": "https://objects.example/bucket/other?x", "payload": self.sign()}
        return {"execution": {"jobId": "job-1", "jobDocument": {"operation": "ota", "urls": urls}}}


class Agent:
    """One whose service is at hand between two requests to `server`."""

    thing_name = "thing"
    pause = 0

    def __init__(self, server, requests, folder):
        self.port = self
        self.state_dir = folder
        self.open_stream = server.open_stream
        self.client, self.connected, self.config = server, server.connected, server.config
        self.requests = requests
        record = {"jobId": "job-1", "executionNumber": 7, "status": "IN_PROGRESS"}
        Journal(folder + "/job.json").write(record)


class Expiry(unittest.TestCase):
    """Presigned URLs do not live as long as a gate may be closed, or as a download may take."""

    def setUp(self):
        self.folder = fresh("ranges")
        self.part = ranges.PART
        ranges.PART = 4
        self.signed = 0  # the latest signature that was given out; it is the one that is good
        self.left = 99  # requests until it is good no longer
        self.server = Server(pattern(SIZE))
        self.server.change = self.judge
        self.requests = Requests(self.sign)
        self.agent = Agent(self.server, self.requests, self.folder)
        self.got = []

    def tearDown(self):
        ranges.PART = self.part
        compat.remove_tree(self.folder)

    def sign(self):
        self.signed += 1
        self.left = 2
        return "https://objects.example/bucket/key?X-Amz-Signature=Secret%d" % self.signed

    refusal = "403 Forbidden\r\n\r\n<Code>AccessDenied</Code><Message>Request has expired</Message>"

    def judge(self, head):
        path = self.server.requests[-1][0]
        if path == "/bucket/key?X-Amz-Signature=Secret%d" % self.signed and self.left:
            self.left -= 1
            return head
        return "HTTP/1.1 " + self.refusal

    def fetch(self, url=URL):
        async def scenario():
            await ranges.fetch(self.agent, url, 0, SIZE, lambda number, data: self.got.append(number))

        saved = ranges.asyncio.sleep

        async def sleep(seconds):
            await saved(0)

        ranges.asyncio.sleep = sleep
        try:
            asyncio.run(scenario())
        finally:
            ranges.asyncio.sleep = saved

    def test_expired_one_is_replaced_by_that_of_the_document_now(self):
        self.fetch()
        self.assertEqual(self.got, list(range(21)))
        topic, body = self.requests.asked[0]
        self.assertEqual(topic, "$aws/things/thing/jobs/job-1/get")
        self.assertEqual(body, {"executionNumber": 7, "includeJobDocument": True})

    def test_it_may_expire_again_and_again_as_long_as_blocks_come(self):
        self.fetch()
        self.assertEqual(self.got, list(range(21)))
        self.assertEqual(self.signed, 3)  # for six requests

    def test_session_of_the_signer_may_expire_too(self):
        self.refusal = "400 Bad Request\r\n\r\n<Code>ExpiredToken</Code>"
        self.fetch()
        self.assertEqual((self.got, self.signed), (list(range(21)), 3))

    def test_other_bad_requests_are_not_asked_about(self):
        self.refusal = "400 Bad Request\r\n\r\n<Code>InvalidArgument</Code>"
        self.assertIn("HTTP 400 InvalidArgument", refusal(self, "transfer", self.fetch))
        self.assertEqual(self.requests.asked, [])

    def test_new_one_that_is_refused_too_ends_it(self):
        self.requests.sign = lambda: "https://objects.example/bucket/key?X-Amz-Signature=Secret-that-is-wrong"
        text = refusal(self, "transfer", self.fetch)
        self.assertIn("HTTP 403 AccessDenied", text)
        self.assertTrue("Secret" not in text)
        self.assertEqual((len(self.requests.asked), len(self.server.requests)), (1, 2))

    def test_object_that_the_document_does_not_name_any_more_ends_it(self):
        self.requests.sign = lambda: "https://objects.example/bucket/key2?X-Amz-Signature=Secret1"
        self.assertIn("HTTP 403 AccessDenied", refusal(self, "transfer", self.fetch))
        self.assertEqual(len(self.server.requests), 1)

    def test_execution_that_is_over_ends_it(self):
        def sign():
            raise Refused("TerminalStateReached", "over")

        self.requests.sign = sign
        self.assertIn("HTTP 403 AccessDenied", refusal(self, "transfer", self.fetch))

    def test_service_that_does_not_answer_is_asked_again(self):
        failures = [TransportError("no answer")] * 2

        def sign():
            if failures:
                raise failures.pop()
            return self.sign()

        self.requests.sign = sign
        self.fetch()
        self.assertEqual(self.got, list(range(21)))


if __name__ == "__main__":
    unittest.main()

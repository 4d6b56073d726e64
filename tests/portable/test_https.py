# SPDX-License-Identifier: Apache-2.0
"""One HTTP request: what is sent, and every way in which an answer may come or be wrong."""

import asyncio
import io
import unittest

from edgeagent import https
from edgeagent.errors import ConfigError, ProtocolError, TransportError

URL = "https://objects.example:8443/bucket/key?X-Amz-Signature=secret"


class Stream:
    """Reader and writer. answers: bytes to be read, one piece a read; then the end."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.sent = b""
        self.events = []
        self.closed = False

    def write(self, data):
        self.events.append("write")
        self.sent += bytes(data)

    async def drain(self):
        pass

    async def read(self, n):
        self.events.append("read")
        await asyncio.sleep(0)
        if not self.answers:
            return b""
        piece = self.answers.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self):
        self.closed = True

    async def wait_closed(self):
        pass


class Port:
    def __init__(self, answers):
        self.stream = Stream(answers)

    async def open_stream(self, *arguments):
        self.arguments = arguments
        return self.stream, self.stream


class Requests(unittest.TestCase):
    def ask(self, answers, method="GET", **options):
        self.port = Port(answers)
        try:
            return asyncio.run(https.request(self.port, method, URL, "ca.der", **options))
        finally:
            self.assertTrue(self.port.stream.closed)

    def test_the_server_is_verified_by_name_and_no_certificate_is_shown(self):
        self.ask([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
        self.assertEqual(self.port.arguments, ("objects.example", 8443, "objects.example", "ca.der", "", ""))

    def test_a_get_has_the_path_as_it_is_in_the_url(self):
        self.ask([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], headers="Range: bytes=0-3\r\n")
        self.assertEqual(
            self.port.stream.sent,
            b"GET /bucket/key?X-Amz-Signature=secret HTTP/1.1\r\nHost: objects.example:8443\r\nConnection: close\r\n"
            b"Range: bytes=0-3\r\n\r\n",
        )

    def test_a_body_goes_out_after_100_continue(self):
        answers = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
        status, _, _ = self.ask(answers, "PUT", body=io.BytesIO(b"abcde"), size=5)
        self.assertEqual(status, 200)
        self.assertIn(b"Content-Length: 5\r\nExpect: 100-continue\r\n", self.port.stream.sent)
        self.assertEqual(self.port.stream.sent.partition(b"\r\n\r\n")[2], b"abcde")
        self.assertEqual(self.port.stream.events, ["write", "read", "write", "read"])

    def test_a_refusal_comes_before_the_body(self):
        answers = [b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\n<Code>x</Code>"]
        status, _, text = self.ask(answers, "PUT", body=io.BytesIO(b"secret data"), size=11)
        self.assertEqual(status, 403)
        self.assertIn(b"<Code>x", text)
        self.assertNotIn(b"secret data", self.port.stream.sent)

    def test_an_answer_may_come_byte_by_byte(self):
        answer = b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/9\r\n\r\nabcd"
        taken = []
        status, head, text = self.ask([answer[i : i + 1] for i in range(len(answer))], sink=taken.append)
        self.assertEqual((status, b"".join(taken), text), (206, b"abcd", b""))
        self.assertEqual(https.field(head, b"content-range"), b"bytes 0-3/9")
        self.assertEqual(https.field(head, b"range"), b"")

    def test_a_sink_gets_no_more_than_the_length_and_only_of_success(self):
        taken = []
        self.ask([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd"], sink=taken.append)
        self.assertEqual(b"".join(taken), b"ab")
        taken = []
        status, _, text = self.ask([b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"], sink=taken.append)
        self.assertEqual((status, text, taken), (404, b"no", []))

    def test_of_a_long_error_only_the_beginning_is_kept(self):
        answers = [b"HTTP/1.1 500 No\r\n\r\n"] + [b"x" * 1000] * 100
        _, _, text = self.ask(answers)
        self.assertEqual(len(text), 1024)
        self.assertTrue(len(self.port.stream.answers) > 90)

    def test_an_answer_that_trickles_is_not_waited_for(self):
        class Trickle(Stream):
            async def read(self, n):
                await asyncio.sleep(0.01)
                return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        saved, https.ANSWER_S = https.ANSWER_S, 0.2
        try:
            for answers in ([b"H"], [b"HTTP/1.1 404 Not Found\r\n\r\n", b"x"]):
                port = Port(())
                port.stream = Trickle(answers)
                with self.assertRaises(TransportError) as caught:
                    asyncio.run(https.request(port, "GET", URL, "ca.der"))
                self.assertEqual(str(caught.exception), "objects.example: no answer")
                self.assertTrue(port.stream.closed)
        finally:
            https.ANSWER_S = saved

    def test_an_answer_that_is_no_http_is_refused(self):
        for answers in (
            [b"SSH-2.0-OpenSSH\r\n\r\n"],
            [b"HTTP/1.1 abc\r\n\r\n"],
            [b"HTTP/1.1\r\n\r\n"],
            [b"x" * 1000] * 9,
            [b"HTTP/1.1 200 OK\r\n"],
            [],
        ):
            with self.assertRaises(ProtocolError):
                self.ask(answers)

    def test_a_sink_needs_a_length(self):
        with self.assertRaises(ProtocolError):
            self.ask([b"HTTP/1.1 200 OK\r\n\r\nabc"], sink=print)

    def test_a_body_cut_short_is_a_link_failure(self):
        with self.assertRaises(TransportError):
            self.ask([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], sink=lambda piece: None)

    def test_failures_name_the_host_and_not_the_url(self):
        try:
            self.ask([OSError(104)])
        except TransportError as error:
            self.assertIn("objects.example", str(error))
            self.assertNotIn("secret", str(error))
            return
        raise AssertionError("no TransportError")

    def test_a_length_that_is_none_is_a_failure(self):
        with self.assertRaises(TransportError):
            self.ask([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"])


class Putting(unittest.TestCase):
    def test_refusal_that_is_no_text_is_told_as_far_as_it_is(self):
        class Agent:
            port = Port(
                [b"HTTP/1.1 403 No\r\n\r\n<Code>Ac\xff\x00cess</Code><Message>" + b"\xc3\xa4" * 80 + b"</Message>"]
            )
            client = port
            pause = 0

            class config:
                https_ca, ca = None, "ca.der"

        async def close():
            pass

        Agent.port.close = close
        self.assertEqual(asyncio.run(https.put(Agent, URL, io.BytesIO(b"x"), 1)), "HTTP 403 Access ")


class Urls(unittest.TestCase):
    def test_parts(self):
        self.assertEqual(https.split("https://a.b/c?d=e/f"), ("a.b", "a.b", 443, "/c?d=e/f"))
        self.assertEqual(https.split("https://a.b:8443/"), ("a.b:8443", "a.b", 8443, "/"))

    def test_what_is_no_https_url_is_refused_without_being_shown(self):
        for url in (None, 7, "", "http://a/secret", "https://a", "https:///secret", "https://u@a/secret"):
            try:
                https.split(url)
            except ConfigError as error:
                self.assertNotIn("secret", str(error))
                continue
            raise AssertionError(url)
        for url in ("https://a/ b", "https://a/\r\nX: 1", "https://a:x/", "https://a/\xe4"):
            with self.assertRaises(ConfigError):
                https.split(url)


if __name__ == "__main__":
    unittest.main()

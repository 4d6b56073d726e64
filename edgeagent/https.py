# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 request over TLS whose server is verified and which shows no certificate of its own: presigned URLs.

Bodies stream in both directions. A request with a body asks first (`Expect: 100-continue`, RFC 9110 10.1.1), so that a
refusal, such as that of an expired URL, comes before a megabyte was sent and not as a reset in the middle of it.
A URL is a secret for as long as it lasts: it stands in no log line and no error text.
"""

import asyncio
import gc

from edgeagent.compat import MICROPYTHON, Any, const, exc_text, wait_for
from edgeagent.errors import AgentError, ConfigError, ProtocolError, TransportError

_HEAD = const(4096)  # bytes of a response head
_TEXT = const(1024)  # of a body that nobody takes: what S3 says about an error is at its beginning
_WAIT_S = const(30)  # for the connection and for each piece of a body that is taken
ANSWER_S = 60  # for a head in all, and for the beginning of a body that nobody takes
_PAUSE_S = const(600)  # the MQTT session stays closed for at most so long during one request
_PIECE = const(1024)  # sent or received at once: larger blocks are hard to get on a board


def split(url: "Any") -> "tuple[str, str, int, str]":
    """(authority, host name, port, path with query) of an https URL. Raises ConfigError, which does not show it."""
    try:
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        host, _, port = authority.partition(":")
        for char in url:
            if not "!" <= char <= "~":
                raise ValueError
        if scheme != "https" or not host or not slash or "@" in host:
            raise ValueError
        return authority, host, int(port or 443), slash + path
    except (ValueError, TypeError, AttributeError):
        raise ConfigError("url", "must be https://host[:port]/path") from None


def field(head: bytes, name: bytes) -> bytes:
    """The value of a header field (name in lower case), b"" if it is absent."""
    at = (b"\r\n" + head.lower()).find(b"\r\n" + name + b":")
    return b"" if at < 0 else head[at + len(name) + 1 :].partition(b"\r\n")[0].strip()


def element(text: bytes, name: bytes) -> str:
    """What is printable of the first XML element `name`, which has no attributes, at most 100 characters."""
    found = ""
    for code in text.partition(name)[2].partition(b"<")[0][:100]:
        if 32 <= code < 127:
            found += chr(code)
    return found


async def _send(writer: "Any", data: "Any") -> None:
    writer.write(data)
    await wait_for(writer.drain(), _WAIT_S)


async def _answer(reader: "Any", rest: bytes) -> "tuple[int, bytes, bytes]":
    """(status, head, what came after it) of the next response. rest: what has been received of it already."""
    while b"\r\n\r\n" not in rest:
        piece = await reader.read(_PIECE)
        rest += piece
        if not piece or len(rest) > _HEAD:
            raise ProtocolError("HTTP: bad head")
    head, _, rest = rest.partition(b"\r\n\r\n")
    try:
        if head[:7] != b"HTTP/1.":
            raise ValueError
        return int(head[9:12]), head, rest
    except ValueError:
        raise ProtocolError("HTTP: bad status") from None


async def _text(reader: "Any", rest: bytes, length: int) -> bytes:
    """The beginning of a body. rest: what has been received of it already. length: of all, -1 if that is unknown."""
    while (length > len(rest) or length < 0) and len(rest) < _TEXT:
        piece = await reader.read(_PIECE)
        if not piece:
            break
        rest += piece
    return rest[:_TEXT]


async def request(
    port: "Any",
    method: str,
    url: str,
    ca: str,
    headers: str = "",
    body: "Any" = None,
    size: int = 0,
    sink: "Any" = None,
    begin: "Any" = None,
) -> "tuple[int, bytes, bytes]":
    """(status, head, text) of the answer to one request on a connection of its own.

    ca: path, in the port's form, of the CA certificate that the server's must come from. headers: more of them, each
    ended by CR LF. body: open file of which `size` bytes are sent. sink: function that takes the body of a 2xx answer
    piece by piece, and may return the seconds to wait before the next; without one, and for other answers, `text` is
    its beginning. begin: function that is given status and head of a 2xx answer before; what it raises is raised here.

    Raises ConfigError for the URL, ProtocolError for an answer that is no HTTP, TransportError.
    """
    authority, host, number, path = split(url)
    head = "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n" % (method, path, authority)
    if body:
        head += "Content-Length: %d\r\nExpect: 100-continue\r\n" % size
    writer = None
    try:
        reader, writer = await wait_for(port.open_stream(host, number, host, ca, "", ""), _WAIT_S)
        await _send(writer, (head + headers + "\r\n").encode())
        status, found, rest = await wait_for(_answer(reader, b""), ANSWER_S)
        if body and status == 100:
            while size > 0:
                piece = body.read(min(size, _PIECE))
                size -= len(piece) or size
                await _send(writer, piece)
            status, found, rest = await wait_for(_answer(reader, rest), ANSWER_S)
        length = int(field(found, b"content-length") or (0 if status == 204 else -1))
        if not sink or status // 100 != 2:
            return status, found, await wait_for(_text(reader, rest, length), ANSWER_S)
        if length < 0:
            raise ProtocolError("HTTP: no length")
        if begin:
            begin(status, found)
        while length > len(rest):
            await asyncio.sleep(sink(rest) or 0)
            length -= len(rest)
            rest = await wait_for(reader.read(_PIECE), _WAIT_S)
            if not rest:
                raise EOFError
        sink(rest[:length])
        return status, found, b""
    except asyncio.TimeoutError:
        raise TransportError(host + ": no answer") from None
    except AgentError:
        raise
    except (OSError, ValueError, EOFError) as error:  # ValueError: TLS of MicroPython
        raise TransportError(host + ": " + exc_text(error)) from None
    finally:
        if writer:
            try:
                writer.close()
                await wait_for(writer.wait_closed(), 3)
            except Exception:  # noqa: S110 - a dead link may fail to say goodbye
                pass
        gc.collect()


async def ask(agent: "Any", method: str, url: str, *rest: "Any") -> "tuple[int, bytes, bytes]":
    """`request` with the agent's CA. On boards MQTT is closed meanwhile: a plain ESP32 has room for one TLS session."""
    config = agent.config
    try:
        if MICROPYTHON:
            agent.pause = _PAUSE_S
            await agent.client.close()
            gc.collect()
        return await request(agent.port, method, url, config.https_ca or config.ca, *rest)
    finally:
        agent.pause = 0


async def put(agent: "Any", url: str, body: "Any", size: int) -> str:
    """Store an object by a presigned URL; "" or why it is refused. Raises as `request`, TransportError for HTTP 5xx."""
    status, _, text = await ask(agent, "PUT", url, "", body, size)
    if status // 100 == 2:
        return ""
    why = "HTTP %d" % status
    for tag in (b"<Code>", b"<Message>"):  # of S3; the rest of its text may hold parts of the signature
        why += " " + element(text, tag)
    if status >= 500 or status in (408, 429):
        raise TransportError(why)
    return why

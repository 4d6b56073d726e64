# SPDX-License-Identifier: Apache-2.0
"""Reading packets off a stream, with no more memory than the packet itself takes. Raises what the stream raises."""

from edgeagent.compat import const
from edgeagent.errors import ProtocolError

try:
    from typing import Any
except ImportError:
    pass

_CHUNK = const(512)


async def header(reader: "Any") -> "tuple[int, int]":
    """(first byte, size of the body) of the next packet (MQTT 3.1.1, 2.2)."""
    head = (await reader.readexactly(1))[0]
    size = shift = 0
    while shift < 28:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        if byte < 128:
            return head, size
        shift += 7
    raise ProtocolError("malformed remaining length")


async def body(reader: "Any", size: int) -> "Any":
    """The body of a packet (bytes; a bytearray of its own on MicroPython), or None if there is no room for it."""
    if not hasattr(reader, "readinto"):
        return await reader.readexactly(size)
    # One allocation of the exact size: readexactly would build it from pieces (micropython.md A1.2).
    try:
        data = bytearray(size)
    except MemoryError:  # after a collection: the allocator has tried that
        return None
    view = memoryview(data)
    while view:
        count = await reader.readinto(view)
        if count == 0:
            raise EOFError
        view = view[count or 0 :]  # None: TLS has no whole record yet
    return data


async def skip(reader: "Any", size: int) -> "Any":
    """Read `size` bytes and keep the first 512: topic and packet id of any PUBLISH on AWS's topics are in them."""
    part = await reader.readexactly(min(size, _CHUNK))
    size -= len(part)
    while size:
        size -= len(await reader.readexactly(min(size, _CHUNK)))
    return part

# SPDX-License-Identifier: Apache-2.0
"""The artifact format: envelope (framing and signatures) and manifest (what, for whom, every hash). Pure.

Envelope: b"EAM1", u16 manifest length, manifest (JSON bytes), u8 number of signatures, and for each: 8 bytes key id,
u8 algorithm, u16 length, bytes. Big-endian, LIMITS.MANIFEST_BYTES at most, nothing may follow.
Algorithms, each over the SHA-256 of the manifest: ecdsa.py (1), rsa.py (2), lms.py (3). Members: docs/ota.md. The JSON
decoder of MicroPython is lax (micropython.md A1.1), so the shape is checked strictly here; a signature covers the exact
bytes, never a re-encoding.
"""

import binascii
import json

from edgeagent.compat import Any, const
from edgeagent.errors import UpdateError
from edgeagent.ota import MAX_PAYLOAD, Files

MAGIC = b"EAM1"
MAX_FILES = 128
_BLOCK = const(4096)  # LIMITS.BLOCK and, by chance, LIMITS.MANIFEST_BYTES; numbers are smaller than names here
_ENVELOPE = const(4096)


def parse_envelope(raw: "bytes | bytearray") -> "tuple[bytes, list[tuple[bytes, int, bytes]]]":
    """(manifest bytes, [(key id, algorithm, signature)]). Raises UpdateError "envelope"."""
    signatures = []
    try:
        at = 6 + (raw[4] << 8 | raw[5])
        manifest = bytes(raw[6:at])
        count = raw[at]
        at += 1
        for _ in range(count):
            end = at + 11 + (raw[at + 9] << 8 | raw[at + 10])
            signatures.append((bytes(raw[at : at + 8]), raw[at + 8], bytes(raw[at + 11 : end])))
            at = end
    except IndexError:
        at = 0  # cut short
    if raw[:4] != MAGIC or at != len(raw) or at > _ENVELOPE or count > 8:
        raise UpdateError("envelope", "malformed or too large")
    return manifest, signatures


def take(holder: "Any", name: "str | int", kind: type, low: int, high: int) -> "Any":
    """Remove member `name` of an object or list and return it. Raises ValueError(name) if it is not what it must be.

    kind: int within low … high; str or list of low … high characters or entries; bytes for so many bytes as hex.
    """
    try:
        value = holder.pop(name)
        if kind is bytes:
            value = binascii.unhexlify(value)
        # `type` and not isinstance: true and false are whole numbers to isinstance.
        size: Any = value if kind is int else len(value)
        if type(value) is kind and low <= size <= high:
            return value
    except (AttributeError, LookupError, TypeError, ValueError):
        pass
    raise ValueError(name)


class Manifest:
    """A checked manifest. boards: list of names, see verify.check; mpy, expires: int or None; requires: {fact: text};
    downgrade: versions that may go back to this one; type: None for an application; files: Files
    of [path, size, None, mode]; size, sha256: of the payload;
    blocks_sha256: of the hash list, 32 bytes for each block and then for each file; blocks: number of blocks.
    No methods: it outlives this module.
    """

    name: str
    version: str
    security_version: int
    boards: "list[str]"
    runtime: str
    mpy: "int | None"
    expires: "int | None"
    requires: "dict[str, str] | None"
    downgrade: "list[str] | None"
    type: "str | None"
    size: int
    sha256: bytes
    blocks_sha256: bytes
    blocks: int
    files: Files


def parse_manifest(raw: bytes) -> Manifest:
    """raw: the exact bytes, their signatures already verified.

    Raises UpdateError "manifest" naming the member that breaks the table of docs/ota.md.
    """
    result = Manifest()
    for _ in read_manifest(raw, result):
        pass
    return result


def read_manifest(raw: bytes, result: Manifest) -> "Any":
    """As parse_manifest, into `result`; yields once a file, so that a board can do something else: at most some 3,000
    simple bytecodes (a path of 200 characters) lie between, and the decoding of 4 KiB of JSON before the first.
    """
    try:
        data = json.loads(raw.decode())
        take(data, "format", int, 1, 1)
        for name, needed, kind, low, high in (
            ("name", True, str, 1, 64),
            ("version", True, str, 1, 64),
            ("runtime", True, str, 1, 64),
            ("security_version", True, int, 0, 1 << 30),
            ("mpy", False, int, 1, 1 << 40),
            ("expires", False, int, 1, 1 << 40),
            ("requires", False, dict, 1, 8),
            ("downgrade", False, list, 1, 16),
            ("type", False, str, 1, 16),
            ("boards", True, list, 1, 32),
        ):
            present = needed or data.get(name) is not None
            value = take(data, name, kind, low, high) if present else data.pop(name, None)
            setattr(result, name, value)
            if present and kind in (dict, list):
                for one in value.values() if kind is dict else value:
                    take({name: one}, name, str, 1, 64)
        # A permission to go back must not be good for ever: whoever kept the artifact could use it again.
        if result.downgrade and not result.expires:
            raise ValueError("downgrade")
        if result.runtime not in ("micropython", "cpython", "any"):
            raise ValueError("runtime")
        result.files = Files()
        yield from _files(take(data, "files", list, 1, MAX_FILES), result.files)
        payload = take(data, "payload", dict, 4, 4)
        size = result.size = take(payload, "size", int, 1, MAX_PAYLOAD)
        for entry in result.files:
            size -= entry[1]
        if size:
            raise ValueError("size")
        take(payload, "block", int, _BLOCK, _BLOCK)
        result.sha256 = take(payload, "sha256", bytes, 32, 32)
        result.blocks_sha256 = take(payload, "blocks_sha256", bytes, 32, 32)
        # Anything else is refused: a rule that this agent does not know must not be ignored.
        for name in data:
            raise ValueError(name)
    except ValueError as error:
        raise UpdateError("manifest", str(error)) from None
    result.blocks = (result.size + (_BLOCK - 1)) // _BLOCK


def _files(entries: "list[Any]", files: Files) -> "Any":
    """Raises ValueError("files[n]")."""
    taken: "dict[str, bool]" = {}  # path: True for a file, False for a folder
    for entry in entries:
        path = ""
        try:
            name = take(entry, 0, str, 1, 200)
            # Only a relative path of printable ASCII that stays in its folder on every file system.
            for c in name:
                if not " " < c < "\x7f" or c in '\\:*?"<>|':
                    raise ValueError
            for segment in name.split("/"):
                if segment in ("", ".", "..") or len(segment) > 64 or taken.get(path):
                    raise ValueError
                taken[path] = False
                path += "/" + segment
            # `x.py` beats `x.mpy` on MicroPython: an artifact with both would not run what it seems to.
            if path[-4:] == ".mpy":
                path = path[:-4] + ".py"
            size = take(entry, 0, int, 0, MAX_PAYLOAD)
            mode = take(entry, 0, int, 0, 0o777) if entry else None
            if entry or path in taken:
                raise ValueError
            taken[path] = True
        except ValueError:
            raise ValueError("files[%d]" % len(files)) from None
        files.append(name, size, mode)
        yield

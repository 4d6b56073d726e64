# SPDX-License-Identifier: Apache-2.0
"""The artifact format: envelope (framing and signatures) and manifest (what, for whom, every hash). Pure.

Envelope: b"EAM1", u16 manifest length, manifest (JSON bytes), u8 number of signatures, and for each: 8 bytes key id,
u8 algorithm, u16 length, bytes. Big-endian, LIMITS.MANIFEST_BYTES at most, nothing may follow.
Manifest members: docs/ota.md. The JSON decoder of MicroPython is lax (micropython.md A1.1), so the shape is checked
strictly here; a signature covers the exact bytes, never a re-encoding.
"""

import binascii
import json

from edgeagent.compat import Any, const
from edgeagent.errors import UpdateError
from edgeagent.limits import LIMITS
from edgeagent.ota import MAX_PAYLOAD

MAGIC = b"EAM1"
ECDSA_P256 = 1  # signature: r||s, 64 bytes, over the SHA-256 of the manifest
MAX_FILES = 128
_SIGNATURES = const(8)
# Anything else is refused: a rule that this agent does not know must not be ignored.
_MEMBERS = "format,name,version,security_version,boards,runtime,mpy,expires,files,payload"


def parse_envelope(raw: "bytes | bytearray") -> "tuple[bytes, list[tuple[bytes, int, bytes]]]":
    """(manifest bytes, [(key id, algorithm, signature)]). Raises UpdateError "envelope"."""
    at = 4
    if len(raw) > LIMITS.MANIFEST_BYTES or raw[:4] != MAGIC:
        raise UpdateError("envelope", "no EAM1, or over %d bytes" % LIMITS.MANIFEST_BYTES)

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        if at > len(raw):
            raise UpdateError("envelope", "cut short")
        return bytes(raw[at - count : at])

    def number(count: int) -> int:
        return int.from_bytes(take(count), "big")

    manifest = take(number(2))
    signatures = []
    count = number(1)
    for _ in range(count):
        key_id = take(8)
        algorithm = number(1)
        signatures.append((key_id, algorithm, take(number(2))))
    if at != len(raw) or count > _SIGNATURES:
        raise UpdateError("envelope", "bytes after its end, or over %d signatures" % _SIGNATURES)
    return manifest, signatures


def _need(good: object, field: str) -> None:
    if not good:
        raise UpdateError("manifest", field)


def _text(value: "Any", field: str, most: int = 64) -> str:
    _need(isinstance(value, str) and 0 < len(value) <= most, field)
    return str(value)


def _int(value: "Any", field: str, low: int, high: int) -> int:
    # `type` and not isinstance: true and false are whole numbers to isinstance.
    _need(type(value) is int and low <= value <= high, field)
    return int(value)


def _list(value: "Any", field: str, most: int) -> "list[Any]":
    _need(isinstance(value, list) and 0 < len(value) <= most, field)
    return list(value)


def _hash(value: "Any", field: str) -> bytes:
    try:
        _need(len(value) == 64, field)
        return binascii.unhexlify(value)
    except (ValueError, TypeError):
        raise UpdateError("manifest", field) from None


def _path(path: str, field: str) -> None:
    """Refuse all but a relative path of printable ASCII that stays in its folder on every file system."""
    for segment in path.split("/"):
        _need(segment not in ("", ".", "..") and len(segment) <= 64, field)
    for c in path:
        _need(" " < c < "\x7f" and c not in '\\:*?"<>|', field)


class Manifest:
    """A checked manifest. boards: list of names; mpy, expires: int or None; files: [(path, size, sha256, mode)] with
    mode int or None; size, sha256, blocks_sha256: of the payload; blocks: number of blocks.
    No methods: it outlives this module.
    """

    name: str
    version: str
    security_version: int
    boards: "list[str]"
    runtime: str
    mpy: "int | None"
    expires: "int | None"
    size: int
    sha256: bytes
    blocks_sha256: bytes
    blocks: int
    files: "list[tuple[str, int, bytes, int | None]]"


def parse_manifest(raw: bytes) -> Manifest:
    """raw: the exact bytes, their signatures already verified.

    Raises UpdateError "manifest" naming the member that breaks the table of docs/ota.md.
    """
    try:
        data = json.loads(raw.decode())
    except ValueError:
        raise UpdateError("manifest", "not JSON") from None
    _need(isinstance(data, dict), "not an object")
    for member in data:
        _need(member in _MEMBERS.split(","), member)
    get = data.get
    _int(get("format"), "format", 1, 1)
    result = Manifest()
    result.name = _text(get("name"), "name")
    result.version = _text(get("version"), "version")
    result.security_version = _int(get("security_version"), "security_version", 0, 1 << 30)
    result.boards = [_text(board, "boards") for board in _list(get("boards"), "boards", 32)]
    result.runtime = get("runtime")
    _need(result.runtime in ("micropython", "cpython", "any"), "runtime")
    result.mpy = None if get("mpy") is None else _int(get("mpy"), "mpy", 1, 255)
    result.expires = None if get("expires") is None else _int(get("expires"), "expires", 1, 1 << 40)
    result.files = _files(_list(get("files"), "files", MAX_FILES))
    payload = get("payload")
    _need(isinstance(payload, dict), "payload")
    get = payload.get
    result.size = _int(get("size"), "payload.size", 1, MAX_PAYLOAD)
    _need(result.size == sum([entry[1] for entry in result.files]), "payload.size")
    _int(get("block"), "payload.block", LIMITS.BLOCK, LIMITS.BLOCK)
    result.sha256 = _hash(get("sha256"), "payload.sha256")
    result.blocks_sha256 = _hash(get("blocks_sha256"), "payload.blocks_sha256")
    result.blocks = (result.size + LIMITS.BLOCK - 1) // LIMITS.BLOCK
    return result


def _files(entries: "list[Any]") -> "list[tuple[str, int, bytes, int | None]]":
    files = []
    taken = {}  # path without the suffix of a module: True for a file, False for a folder
    for n, entry in enumerate(entries):
        field = "files[%d]" % n
        _need(isinstance(entry, list) and 3 <= len(entry) <= 4, field)
        path = _text(entry[0], field, 200)
        _path(path, field)
        mode = entry[3] if len(entry) == 4 else None
        if mode is not None:
            _int(mode, field, 0, 0o777)
        # `x.py` beats `x.mpy` on MicroPython: an artifact with both would not run what it seems to.
        module = path[:-4] + ".py" if path[-4:] == ".mpy" else path
        _need(module not in taken, field)
        taken[module] = True
        cut = path.rfind("/")
        while cut > 0:
            _need(not taken.get(path[:cut]), field)
            taken[path[:cut]] = False
            cut = path[:cut].rfind("/")
        files.append((path, _int(entry[1], field, 0, MAX_PAYLOAD), _hash(entry[2], field), mode))
    return files

# SPDX-License-Identifier: Apache-2.0
"""The artifact format: envelope (framing and signatures) and manifest (what, for whom, every hash). Pure.

Envelope: b"EAM1", u16 manifest length, manifest (JSON bytes), u8 number of signatures, and for each: 8 bytes key id,
u8 algorithm, u16 length, bytes. Big-endian, LIMITS.MANIFEST_BYTES at most, nothing may follow.
Manifest members: docs/ota.md. The JSON decoder of MicroPython is lax (micropython.md A1.1), so the shape is checked
strictly here; a signature covers the exact bytes, never a re-encoding.
"""

import binascii
import json

from edgeagent.compat import const
from edgeagent.config import LIMITS
from edgeagent.errors import UpdateError

MAGIC = b"EAM1"
ECDSA_P256 = const(1)  # signature: r||s, 64 bytes, over the SHA-256 of the manifest
MAX_SIGNATURES = const(8)
MAX_FILES = const(128)
MAX_PAYLOAD = const(8388608)  # bytes; its hash list is then 64 KiB, which only larger devices can hold
_RUNTIMES = ("micropython", "cpython", "any")
# Anything else is refused: a rule that this agent does not know must not be ignored.
_MEMBERS = "format name version security_version boards runtime mpy expires files payload".split()


def parse_envelope(raw: bytes) -> "tuple[bytes, list]":
    """(manifest bytes, [(key id, algorithm, signature)]). Raises UpdateError "envelope"."""
    if len(raw) > LIMITS.MANIFEST_BYTES:
        raise UpdateError("envelope", "larger than %d bytes" % LIMITS.MANIFEST_BYTES)
    if raw[:4] != MAGIC:
        raise UpdateError("envelope", "does not start with EAM1")
    at = 4

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        if at > len(raw):
            raise UpdateError("envelope", "is cut short")
        return raw[at - count : at]

    manifest = take(int.from_bytes(take(2), "big"))
    signatures = []
    count = take(1)[0]
    if count > MAX_SIGNATURES:
        raise UpdateError("envelope", "more than %d signatures" % MAX_SIGNATURES)
    for _ in range(count):
        key_id = take(8)
        algorithm = take(1)[0]
        signatures.append((key_id, algorithm, take(int.from_bytes(take(2), "big"))))
    if at != len(raw):
        raise UpdateError("envelope", "has bytes after its end")
    return manifest, signatures


def build_envelope(manifest: bytes, signatures: list) -> bytes:
    """The inverse of `parse_envelope`; the publisher's side. Raises UpdateError "envelope" if it is too large."""
    parts = [MAGIC, len(manifest).to_bytes(2, "big"), manifest, bytes([len(signatures)])]
    for key_id, algorithm, signature in signatures:
        parts.append(key_id + bytes([algorithm]) + len(signature).to_bytes(2, "big") + signature)
    raw = b"".join(parts)
    parse_envelope(raw)
    return raw


def _need(good: object, field: str, problem: str) -> None:
    if not good:
        raise UpdateError("manifest", "%s: %s" % (field, problem))


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most


def _is_int(value: object, low: int, high: int) -> bool:
    # `type` and not isinstance: true and false are whole numbers to isinstance.
    return type(value) is int and low <= value <= high


def _hash(value: object, field: str) -> bytes:
    if isinstance(value, str) and len(value) == 64:
        try:
            return binascii.unhexlify(value)
        except ValueError:
            pass
    raise UpdateError("manifest", "%s: must be 64 hex digits" % field)


def _path(path: object, field: str) -> str:
    """A relative path that stays in its folder on every file system. Raises UpdateError."""
    _need(_is_text(path, 200), field, "path must be text of 1 to 200 characters")
    path = str(path)
    for segment in path.split("/"):
        _need(segment not in ("", ".", "..") and len(segment) <= 64, field, "path has a bad segment")
    for c in path:
        _need(" " < c < "\x7f" and c not in '\\:*?"<>|', field, "path has a bad character")
    return path


class Manifest:
    """A checked manifest. boards: list of names; mpy, expires: int or None; files: [(path, size, sha256, mode)] with
    mode int or None; size, sha256, blocks_sha256: of the payload; blocks: number of blocks.
    """

    def __init__(self, raw: bytes) -> None:
        """raw: the exact bytes, their signatures already verified. Raises UpdateError "manifest" naming the member."""
        try:
            data = json.loads(raw.decode())
        except ValueError:
            raise UpdateError("manifest", "is not JSON") from None
        _need(isinstance(data, dict), "manifest", "must be an object")
        for member in data:
            _need(member in _MEMBERS, member, "is not known to this agent")
        _need(_is_int(data.get("format"), 1, 1), "format", "must be 1")
        for member in ("name", "version"):
            _need(_is_text(data.get(member), 64), member, "must be text of 1 to 64 characters")
        self.name = data["name"]
        self.version = data["version"]
        self.security_version = data.get("security_version")
        _need(_is_int(self.security_version, 0, 1 << 30), "security_version", "must be a whole number")
        self.boards = data.get("boards")
        _need(isinstance(self.boards, list) and 0 < len(self.boards) <= 32, "boards", "must name 1 to 32 boards")
        for board in self.boards:
            _need(_is_text(board, 64), "boards", "must be text of 1 to 64 characters")
        self.runtime = data.get("runtime")
        _need(self.runtime in _RUNTIMES, "runtime", "must be micropython, cpython or any")
        self.mpy = data.get("mpy")
        _need(self.mpy is None or _is_int(self.mpy, 1, 255), "mpy", "must be 1 to 255")
        self.expires = data.get("expires")
        _need(self.expires is None or _is_int(self.expires, 0, 1 << 40), "expires", "must be epoch seconds")
        payload = data.get("payload")
        _need(isinstance(payload, dict), "payload", "must be an object")
        self.size = payload.get("size")
        _need(_is_int(self.size, 1, MAX_PAYLOAD), "payload.size", "must be 1 to %d bytes" % MAX_PAYLOAD)
        _need(payload.get("block") == LIMITS.BLOCK, "payload.block", "must be %d" % LIMITS.BLOCK)
        self.sha256 = _hash(payload.get("sha256"), "payload.sha256")
        self.blocks_sha256 = _hash(payload.get("blocks_sha256"), "payload.blocks_sha256")
        self.blocks = (self.size + LIMITS.BLOCK - 1) // LIMITS.BLOCK
        self.files: "list[tuple]" = []
        self._read_files(data.get("files"))

    def _read_files(self, files: object) -> None:
        _need(isinstance(files, list) and 0 < len(files) <= MAX_FILES, "files", "must list 1 to %d files" % MAX_FILES)  # type: ignore[arg-type]
        total = 0
        paths = set()
        modules = set()
        for n, entry in enumerate(files):  # type: ignore[arg-type]
            field = "files[%d]" % n
            _need(isinstance(entry, list) and 3 <= len(entry) <= 4, field, "must be [path, size, sha256, mode?]")
            path = _path(entry[0], field)
            _need(_is_int(entry[1], 0, MAX_PAYLOAD), field, "size must be 0 to %d bytes" % MAX_PAYLOAD)
            mode = entry[3] if len(entry) == 4 else None
            _need(mode is None or _is_int(mode, 0, 0o777), field, "mode must be 0 to 511")
            # `x.py` beats `x.mpy` on MicroPython: an artifact with both would not run what it seems to.
            module = path[:-4] + ".py" if path[-4:] == ".mpy" else path
            _need(module not in modules, field, "path appears twice, or as .py and .mpy")
            modules.add(module)
            paths.add(path)
            self.files.append((path, entry[1], _hash(entry[2], field), mode))
            total += entry[1]
        for path in paths:
            cut = path.rfind("/")
            while cut > 0:
                _need(path[:cut] not in paths, "files", "%s is a file and a folder" % path[:cut])
                cut = path[:cut].rfind("/")
        _need(total == self.size, "payload.size", "is not the sum of the files' sizes")

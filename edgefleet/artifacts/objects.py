# SPDX-License-Identifier: Apache-2.0
"""The object store: buckets are folders, keys are paths inside them, so an operator can look with `ls`.

It backs the S3-compatible part of the HTTP front, bulk input and report files, update streams and device uploads.
A file appears whole and durable, or not at all. Difference from S3: a key cannot be both an object and a prefix of
other keys (`a` and `a/b`), because a file cannot also be a folder.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from edgefleet.errors import ApiError

KEY_BYTES = 1024
SEGMENT_BYTES = 255  # one path component on every file system we run on
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
# Not a legal bucket name, so no request can ever reach it.
_INCOMING = "_incoming"
_REST_S = 86_400


def check_bucket(bucket: str) -> str:
    """Return a legal bucket name (3 to 63 of `[a-z0-9.-]`, ends alphanumeric), else raise InvalidBucketName 400."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise ApiError(
            "InvalidBucketName",
            f"bucket '{bucket[:70]}': must be 3 to 63 characters of [a-z0-9.-], begin and end with a letter or digit",
            400,
        )
    return bucket


def check_key(key: str) -> str:
    """Return a legal object key, else raise InvalidArgument 400 that says what is wrong with it."""
    problem = None
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise ApiError("InvalidArgument", "object key: is not valid Unicode", 400) from None
    segments = key.split("/")
    if not key:
        problem = "is empty"
    elif len(encoded) > KEY_BYTES:
        problem = f"has {len(encoded)} bytes, at most {KEY_BYTES} are allowed"
    elif any(ord(character) < 32 or ord(character) == 127 for character in key):
        problem = "has a control character"
    elif any(segment in ("", ".", "..") for segment in segments):
        problem = "must not begin or end with '/' nor have an empty, '.' or '..' part"
    elif any(len(segment.encode()) > SEGMENT_BYTES for segment in segments):
        problem = f"has a part between '/' of more than {SEGMENT_BYTES} bytes"
    if problem:
        raise ApiError("InvalidArgument", f"object key '{key[:100]}': {problem}", 400)
    return key


class Objects:
    """Objects below one folder. Errors are ApiError with S3's names (NoSuchKey 404, InvalidBucketName 400 …)."""

    def __init__(self, folder: Path) -> None:
        """folder: made if absent. Left-overs of writes that a crash interrupted are removed once they are a day old;
        younger ones may belong to another process that has the store open."""
        self._folder = Path(folder)
        self._incoming = self._folder / _INCOMING
        self._incoming.mkdir(parents=True, exist_ok=True)
        for rest in self._incoming.iterdir():
            if time.time() - rest.stat().st_mtime > _REST_S:
                rest.unlink(missing_ok=True)

    def path(self, bucket: str, key: str) -> Path:
        """Where the object is or would be. Never outside the folder: both names are validated first."""
        return self._folder / check_bucket(bucket) / check_key(key)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object; durable when this returns. An object of the same key is replaced atomically."""
        with self.writing(bucket, key) as file:
            file.write(data)

    def put_stream(self, bucket: str, key: str, source: IO[bytes]) -> None:
        """Store what `source` still has to read, in pieces; otherwise as `put`."""
        with self.writing(bucket, key) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    @contextmanager
    def writing(self, bucket: str, key: str) -> Iterator[BinaryIO]:
        """A file to stream a new object into; it takes its place, durably, when the block ends without an exception."""
        target = self.path(bucket, key)
        temporary = self._incoming / uuid.uuid4().hex
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._make_folders(target.parent, key)
            if target.is_dir():
                raise ApiError("InvalidArgument", f"object key '{key}': is a prefix of other objects", 409)
            temporary.replace(target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folders(self, folder: Path, key: str) -> None:
        """`mkdir -p` whose result survives a power cut: every folder that gained an entry is synced."""
        missing = []
        while not folder.is_dir():
            if folder.exists():
                raise ApiError("InvalidArgument", f"object key '{key}': '{folder.name}' is itself an object", 409)
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _sync_folder(new.parent)

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object. Raises NoSuchKey 404."""
        with self.open(bucket, key) as file:
            return file.read()

    def open(self, bucket: str, key: str) -> BinaryIO:
        """The object as a binary file, for ranges and streaming. Raises NoSuchKey 404."""
        try:
            return self.path(bucket, key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ApiError("NoSuchKey", f"The specified key does not exist: {bucket}/{key}", 404) from None

    def size(self, bucket: str, key: str) -> int:
        """Bytes of an object. Raises NoSuchKey 404."""
        with self.open(bucket, key) as file:
            return os.fstat(file.fileno()).st_size

    def list(self, bucket: str, prefix: str = "") -> list[tuple[str, int, float]]:
        """`(key, bytes, modified as epoch seconds)` of every object whose key starts with `prefix`, in key order."""
        root = self._folder / check_bucket(bucket)
        found = []
        for folder, _, files in os.walk(root):
            for name in files:
                path = Path(folder) / name
                key = path.relative_to(root).as_posix()
                if key.startswith(prefix):
                    status = path.stat()
                    found.append((key, status.st_size, status.st_mtime))
        return sorted(found)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; as in S3, deleting what is not there succeeds. Prefix folders left empty go too."""
        path = self.path(bucket, key)
        try:
            path.unlink()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
            if path.is_file():
                raise
            return
        bucket_folder = self._folder / bucket
        folder = path.parent
        while folder != bucket_folder:
            try:
                folder.rmdir()
            except OSError:
                break  # not empty
            folder = folder.parent
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make a rename or a new entry durable (POSIX: the directory itself must be synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

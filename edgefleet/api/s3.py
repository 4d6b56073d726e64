# SPDX-License-Identifier: Apache-2.0
"""A thin S3 (path style, rest-xml) over the object store: what bulk registration, streams and uploads need.

PutObject, GetObject (Range), HeadObject, ListObjectsV2, DeleteObject; buckets exist as soon as they are named, so
CreateBucket and HeadBucket only say yes. Everything else answers NotImplemented 501, multipart uploads included.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from edgefleet import names
from edgefleet.api.http import HttpRequest, HttpResponse, TooLarge
from edgefleet.api.sigv4 import UNSIGNED, UNSIGNED_CHUNKED
from edgefleet.artifacts.objects import Objects, check_bucket
from edgefleet.errors import ApiError

_PAGE = 1000  # ListObjectsV2 answers at most so many keys
_XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production Char
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# Query names that select other operations of S3 on the same path.
_OTHER = frozenset(
    (
        *("acl", "attributes", "cors", "delete", "encryption", "lifecycle", "logging", "notification", "object-lock"),
        *("partNumber", "policy", "replication", "restore", "retention", "select", "tagging", "torrent", "uploadId"),
        *("uploads", "versionId", "versioning", "versions", "website"),
    )
)


def xml_error(error: ApiError, request_id: str) -> bytes:
    """The rest-xml form of an error. `RequestEntityTooLargeException` and its like get their S3 names."""
    code = {
        "RequestEntityTooLargeException": "EntityTooLarge",
        "NotImplementedException": "NotImplemented",
        "InternalFailureException": "InternalError",
        "InvalidRequestException": "InvalidRequest",
        "MissingAuthenticationTokenException": "AccessDenied",
    }.get(error.code, error.code)
    message = escape(_NOT_XML.sub("?", error.message))
    text = f"<Code>{escape(code)}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId>"
    return f"{_XML_HEAD}<Error>{text}</Error>".encode()


class S3:
    def __init__(self, objects: Objects, max_object: int) -> None:
        """max_object: bytes, cap of a PutObject."""
        self._objects = objects
        self._max_object = max_object

    async def handle(self, request: HttpRequest, content_hash: str) -> HttpResponse:
        """Answer one request whose signature was proven. content_hash: as signed, to be held against the body.

        Raises ApiError with S3's error names.
        """
        bucket, _, raw_key = request.path.removeprefix("/").partition("/")
        bucket, key = unquote(bucket), unquote(raw_key)
        query = dict(request.query)
        unsupported = sorted(_OTHER & query.keys())
        if not bucket or unsupported:
            what = unsupported[0] if unsupported else "ListBuckets"
            raise ApiError("NotImplemented", f"edgefleet's S3 does not implement {what}", 501)
        if not key:
            return self._bucket(request.method, bucket, query)
        if request.method == "PUT":
            return await self._put(request, bucket, key, content_hash)
        if request.method in ("GET", "HEAD"):
            return self._get(request, bucket, key)
        if request.method == "DELETE":
            self._objects.delete(bucket, key)
            return HttpResponse(204)
        raise ApiError("MethodNotAllowed", f"{request.method} is not allowed on an object", 405)

    def _bucket(self, method: str, bucket: str, query: dict[str, str]) -> HttpResponse:
        if method == "GET" and "location" in query:
            return _xml(f"<LocationConstraint {_XMLNS}>{names.REGION}</LocationConstraint>")
        if method == "GET" and query.get("list-type") == "2":
            return self._list(bucket, query)
        if method == "GET":
            raise ApiError("NotImplemented", "edgefleet's S3 lists with ListObjectsV2 only", 501)
        if method == "HEAD":
            check_bucket(bucket)
            return HttpResponse(200, {"x-amz-bucket-region": names.REGION})
        if method == "PUT":
            check_bucket(bucket)
            return HttpResponse(200, {"location": f"/{bucket}"})
        raise ApiError("NotImplemented", f"edgefleet's S3 does not implement {method} on a bucket", 501)

    async def _put(self, request: HttpRequest, bucket: str, key: str, content_hash: str) -> HttpResponse:
        if "x-amz-copy-source" in request.headers:
            raise ApiError("NotImplemented", "edgefleet's S3 does not implement CopyObject", 501)
        with self._objects.writing(bucket, key) as file:  # an exception in here leaves nothing behind
            digests = _Digests(request.headers)
            source = request.chunks(self._max_object + (_CHUNKED_OVERHEAD if content_hash == UNSIGNED_CHUNKED else 0))
            async for piece in _dechunked(source, self._max_object) if content_hash == UNSIGNED_CHUNKED else source:
                digests.update(piece)
                file.write(piece)
            digests.check(content_hash)
        with self._objects.open(bucket, key) as stored:
            return HttpResponse(200, {"etag": _etag(*_stat(stored))})

    def _get(self, request: HttpRequest, bucket: str, key: str) -> HttpResponse:
        file = self._objects.open(bucket, key)
        try:
            size, modified = _stat(file)
            headers = {
                "content-type": "application/octet-stream",
                "accept-ranges": "bytes",
                "etag": _etag(size, modified),
                "last-modified": formatdate(modified, usegmt=True),
            }
            status, start, length = 200, 0, size
            wanted = _range(request.headers.get("range", ""), size)
            if wanted is not None:
                status, (start, length) = 206, wanted
                headers["content-range"] = f"bytes {start}-{start + length - 1}/{size}"
            file.seek(start)
        except BaseException:
            file.close()
            raise
        return HttpResponse(status, headers, file=file, length=length)

    def _list(self, bucket: str, query: dict[str, str]) -> HttpResponse:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = query.get("max-keys", str(_PAGE))
        if not re.fullmatch(r"[0-9]{1,9}", limit):
            raise ApiError("InvalidArgument", "max-keys must be a whole number", 400)
        limit_n = min(int(limit), _PAGE)
        token = query.get("continuation-token")
        after = query.get("start-after", "") if token is None else _token_key(token)
        entries: dict[str, str] = {}  # key or common prefix -> its XML, in key order
        truncated, last = False, ""
        for key, size, modified in sorted(self._objects.list(bucket, prefix)):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + len(delimiter)]
            if name <= after or name in entries:
                continue
            if len(entries) >= limit_n:
                truncated = True
                break
            entries[name] = last = name
            shown = quote(name, safe="/-_.~") if query.get("encoding-type") == "url" else escape(name)
            if cut >= 0:
                entries[name] = f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
            else:
                entries[name] = (
                    f"<Contents><Key>{shown}</Key><LastModified>{_iso(modified)}</LastModified>"
                    f"<ETag>{escape(_etag(size, modified))}</ETag><Size>{size}</Size>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                )
        parts = [
            f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix><Delimiter>{escape(delimiter)}</Delimiter>",
            f"<MaxKeys>{limit_n}</MaxKeys><KeyCount>{len(entries)}</KeyCount>",
            f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>",
        ]
        if query.get("encoding-type") == "url":
            parts.append("<EncodingType>url</EncodingType>")
        if truncated:
            parts.append(f"<NextContinuationToken>{_key_token(last)}</NextContinuationToken>")
        return _xml(f"<ListBucketResult {_XMLNS}>{''.join(parts)}{''.join(entries.values())}</ListBucketResult>")


class _Digests:
    """What the client says of its body, held against what came."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32 = 0
        self._wanted = {
            "Content-MD5": headers.get("content-md5"),
            "x-amz-checksum-sha256": headers.get("x-amz-checksum-sha256"),
            "x-amz-checksum-crc32": headers.get("x-amz-checksum-crc32"),
        }

    def update(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._md5.update(piece)
        self._crc32 = zlib.crc32(piece, self._crc32)

    def check(self, content_hash: str) -> None:
        """Raises ApiError 400. content_hash: hex, or one of the UNSIGNED words."""
        if content_hash not in (UNSIGNED, UNSIGNED_CHUNKED, self._sha256.hexdigest()):
            raise ApiError("XAmzContentSHA256Mismatch", "x-amz-content-sha256 is not the hash of the body", 400)
        found = {
            "Content-MD5": self._md5.digest(),
            "x-amz-checksum-sha256": self._sha256.digest(),
            "x-amz-checksum-crc32": self._crc32.to_bytes(4, "big"),
        }
        for header, wanted in self._wanted.items():
            if wanted is not None and wanted != base64.b64encode(found[header]).decode():
                raise ApiError("BadDigest", f"The {header} given is not that of the body", 400)


_CHUNKED_OVERHEAD = 1024 * 1024  # chunk heads and trailers of a body of 64 MB in chunks of 8 KB are below this
_LINE = 512  # bytes; a chunk head or a trailer is far shorter


async def _dechunked(source: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """The data of an aws-chunked body with unsigned chunks; its trailers (checksums) are read and dropped.

    Newer SDKs send this by default. Source: S3, "streaming unsigned payload trailer".
    Raises ApiError 400 on a malformed body, TooLarge beyond `limit` bytes of data.
    """
    buffer, left, total = b"", -1, 0  # left: bytes of the chunk still to come; -1: a head is next; -2: trailers
    async for piece in source:
        buffer += piece
        while buffer:
            if left > 0:
                data, buffer = buffer[:left], buffer[left:]
                left -= len(data)
                yield data
                continue
            line, found, rest = buffer.partition(b"\r\n")
            if not found:
                if len(buffer) > _LINE:
                    raise ApiError("InvalidRequest", "The aws-chunked body is malformed", 400)
                break
            buffer = rest
            if left == 0:  # the line end after a chunk
                if line:
                    raise ApiError("InvalidRequest", "The aws-chunked body is malformed", 400)
                left = -1
            elif left == -1:
                size = line.partition(b";")[0]
                if not re.fullmatch(rb"[0-9a-fA-F]{1,12}", size):
                    raise ApiError("InvalidRequest", "The aws-chunked body is malformed", 400)
                left = int(size, 16)
                total += left
                if total > limit:
                    raise TooLarge(limit)
                left = left or -2
    if left != -2:
        raise ApiError("IncompleteBody", "The aws-chunked body ended early", 400)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """(start, length) of a single range, or None for the whole object: malformed headers are ignored, as in HTTP.

    Raises ApiError InvalidRange 416 if no byte of the object is in it.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size - 1
    else:
        start, end = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
        if found[2] and int(found[2]) < start:
            return None
    if start >= size:
        raise ApiError("InvalidRange", f"The object has {size} bytes; the range begins beyond them", 416)
    return start, end - start + 1


def _stat(file: BinaryIO) -> tuple[int, float]:
    """(size, modification time)."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime


def _etag(size: int, modified: float) -> str:
    """Changes with every write. Opaque to clients, so no need to hash the object again at each request."""
    return f'"{int(modified * 1e6):x}-{size:x}"'


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _key_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _token_key(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        raise ApiError("InvalidArgument", "The continuation token is not one of ours", 400) from None


def _xml(content: str) -> HttpResponse:
    return HttpResponse(200, {"content-type": "application/xml"}, (_XML_HEAD + content).encode())

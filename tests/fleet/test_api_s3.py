# SPDX-License-Identifier: Apache-2.0
"""The thin S3, asked by boto3 and by presigned URLs."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.api.http import TooLarge
from edgefleet.api.s3 import _dechunked, _range
from edgefleet.errors import ApiError
from tests.fleet.api_world import ApiWorld

CAP = 1_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    world = ApiWorld(tmp_path_factory.mktemp("s3"), {}, max_object=CAP)
    yield world
    world.close()


@pytest.fixture(scope="module")
def s3(world: ApiWorld) -> Any:
    return world.client("s3")


def refused(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def get(world: ApiWorld, url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(world.ca))
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    "key", ["a", "folder/file.bin", "with space+plus", "ümläut/温度", "a=b&c", "~tilde", "per%20cent"]
)
def test_an_object_comes_back_as_it_was_put(s3: Any, key: str) -> None:
    data = bytes(range(256)) * 300
    put = s3.put_object(Bucket="things", Key=key, Body=data)
    got = s3.get_object(Bucket="things", Key=key)
    assert got["Body"].read() == data
    assert got["ETag"] == put["ETag"] == s3.head_object(Bucket="things", Key=key)["ETag"]
    assert got["ContentLength"] == len(data)


def test_an_empty_object_is_an_object(s3: Any) -> None:
    s3.put_object(Bucket="empty", Key="e", Body=b"")
    assert s3.get_object(Bucket="empty", Key="e")["Body"].read() == b""


def test_a_replaced_object_has_another_etag(s3: Any) -> None:
    first = s3.put_object(Bucket="etags", Key="e", Body=b"one")["ETag"]
    assert s3.put_object(Bucket="etags", Key="e", Body=b"two")["ETag"] != first


@pytest.mark.parametrize(
    ("header", "data", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ],
)
def test_a_range_is_part_of_the_object(s3: Any, header: str, data: bytes, content_range: str) -> None:
    s3.put_object(Bucket="ranges", Key="r", Body=b"0123456789")
    got = s3.get_object(Bucket="ranges", Key="r", Range=header)
    assert got["Body"].read() == data
    assert got["ContentRange"] == content_range
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_beyond_the_end_is_416(s3: Any) -> None:
    s3.put_object(Bucket="ranges", Key="r", Body=b"0123456789")
    assert refused(s3.get_object, Bucket="ranges", Key="r", Range="bytes=10-") == (416, "InvalidRange")


@given(header=st.text(max_size=20) | st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True), size=st.integers(0, 300))
def test_any_range_header_stays_inside_the_object(header: str, size: int) -> None:
    try:
        found = _range(header, size)
    except ApiError as error:
        assert error.status == 416
        return
    if found is not None:
        start, length = found
        assert start >= 0 and length > 0 and start + length <= size


def test_what_is_not_there_is_404(s3: Any) -> None:
    assert refused(s3.get_object, Bucket="things", Key="none") == (404, "NoSuchKey")
    assert refused(s3.head_object, Bucket="things", Key="none")[0] == 404


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(s3: Any) -> None:
    s3.put_object(Bucket="gone", Key="g", Body=b"x")
    s3.delete_object(Bucket="gone", Key="g")
    s3.delete_object(Bucket="gone", Key="g")
    assert refused(s3.get_object, Bucket="gone", Key="g") == (404, "NoSuchKey")


def test_buckets_exist_when_named(s3: Any) -> None:
    s3.create_bucket(Bucket="new-bucket")
    s3.head_bucket(Bucket="new-bucket")
    assert s3.list_objects_v2(Bucket="new-bucket")["KeyCount"] == 0
    assert s3.get_bucket_location(Bucket="new-bucket")["LocationConstraint"] == "local-1"


def test_a_listing_has_keys_sizes_and_common_prefixes(s3: Any) -> None:
    for key in ("a/1", "a/2 x&y", "b/1", "c"):
        s3.put_object(Bucket="listing", Key=key, Body=key.encode())
    page = s3.list_objects_v2(Bucket="listing")
    assert [(entry["Key"], entry["Size"]) for entry in page["Contents"]] == [
        ("a/1", 3),
        ("a/2 x&y", 7),
        ("b/1", 3),
        ("c", 1),
    ]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="listing", Prefix="a/")["Contents"]] == [
        "a/1",
        "a/2 x&y",
    ]
    top = s3.list_objects_v2(Bucket="listing", Delimiter="/")
    assert [entry["Prefix"] for entry in top["CommonPrefixes"]] == ["a/", "b/"]
    assert [entry["Key"] for entry in top["Contents"]] == ["c"]
    assert s3.list_objects_v2(Bucket="listing", StartAfter="b/1")["KeyCount"] == 1


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_hold_every_key_once(world: ApiWorld, s3: Any, delimiter: str) -> None:
    keys = [f"{n % 5}/{n:02}" for n in range(23)] + [f"z{n}" for n in range(5)]
    for key in keys:
        world.objects.put("pages", key, b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="pages", Delimiter=delimiter, PaginationConfig={"PageSize": 4}
    )
    seen = [e.get("Key") or e["Prefix"] for p in pages for e in (*p.get("Contents", ()), *p.get("CommonPrefixes", ()))]
    assert sorted(seen) == (sorted(keys) if not delimiter else [*(f"{n}/" for n in range(5)), *keys[23:]])


def test_an_object_beyond_the_cap_is_refused_and_leaves_nothing(s3: Any) -> None:
    assert refused(s3.put_object, Bucket="cap", Key="big", Body=bytes(CAP + 1)) == (413, "EntityTooLarge")
    assert refused(s3.get_object, Bucket="cap", Key="big") == (404, "NoSuchKey")
    s3.put_object(Bucket="cap", Key="fits", Body=bytes(CAP))


def test_the_default_settings_of_new_sdks_work_too(world: ApiWorld) -> None:
    """They send aws-chunked bodies with a CRC trailer."""
    client = world.client("s3", request_checksum_calculation="when_supported")
    client.put_object(Bucket="chunked", Key="c", Body=bytes(range(256)) * 1000)
    assert world.client("s3").get_object(Bucket="chunked", Key="c")["Body"].read() == bytes(range(256)) * 1000


@pytest.mark.parametrize("name", ["ContentMD5", "ChecksumSHA256", "ChecksumCRC32"])
def test_a_wrong_checksum_is_refused_and_leaves_nothing(s3: Any, name: str) -> None:
    wrong = {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg==", "ChecksumSHA256": "A" * 43 + "=", "ChecksumCRC32": "AAAAAA=="}
    assert refused(s3.put_object, Bucket="sums", Key=name, Body=b"x", **{name: wrong[name]}) == (400, "BadDigest")
    assert refused(s3.get_object, Bucket="sums", Key=name) == (404, "NoSuchKey")


def test_a_body_that_is_not_the_signed_one_is_refused(world: ApiWorld) -> None:
    client = world.client("s3")

    def tamper(request: Any, **_: Any) -> None:
        request.body = b"other"
        request.headers["Content-Length"] = "5"

    client.meta.events.register("before-send.s3.PutObject", tamper)
    status, code = refused(client.put_object, Bucket="tampered", Key="t", Body=b"right")
    assert (status, code) == (400, "XAmzContentSHA256Mismatch")
    assert refused(world.client("s3").get_object, Bucket="tampered", Key="t") == (404, "NoSuchKey")


def test_a_wrong_secret_writes_nothing(world: ApiWorld) -> None:
    forged = world.client("s3", secret="wrong")
    assert refused(forged.put_object, Bucket="forged", Key="f", Body=b"x") == (403, "SignatureDoesNotMatch")
    assert refused(world.client("s3").get_object, Bucket="forged", Key="f") == (404, "NoSuchKey")


@pytest.mark.parametrize(("bucket", "key"), [("things", "../escape"), ("things", "a/../../b"), ("things", "a//b")])
def test_a_key_cannot_leave_its_bucket(s3: Any, bucket: str, key: str) -> None:
    assert refused(s3.put_object, Bucket=bucket, Key=key, Body=b"x")[0] == 400


def test_an_error_about_an_odd_key_is_still_xml(s3: Any) -> None:
    assert refused(s3.put_object, Bucket="things", Key="bell\x07&<", Body=b"x") == (400, "InvalidArgument")


@pytest.mark.parametrize("operation", ["list_buckets", "get_object_tagging", "create_multipart_upload", "list_objects"])
def test_what_is_not_implemented_says_so(s3: Any, operation: str) -> None:
    arguments = {} if operation == "list_buckets" else {"Bucket": "things"}
    if operation in ("get_object_tagging", "create_multipart_upload"):
        arguments["Key"] = "a"
    assert refused(getattr(s3, operation), **arguments) == (501, "NotImplemented")


# Presigned URLs.


def test_our_presigned_url_gets_one_object_without_credentials(world: ApiWorld, s3: Any) -> None:
    s3.put_object(Bucket="signed", Key="a b/c+d", Body=b"content")
    url = world.verifier.presign("signed", "a b/c+d", 60)
    assert get(world, url) == (200, b"content")
    assert get(world, url.replace("c%2Bd", "other"))[0] == 403


def test_boto3s_presigned_url_works_as_well(world: ApiWorld, s3: Any) -> None:
    s3.put_object(Bucket="signed", Key="k", Body=b"content")
    url = s3.generate_presigned_url("get_object", {"Bucket": "signed", "Key": "k"}, ExpiresIn=60)
    assert get(world, url) == (200, b"content")


def test_an_expired_url_is_refused(world: ApiWorld, s3: Any) -> None:
    s3.put_object(Bucket="signed", Key="k", Body=b"content")
    url = world.verifier.presign("signed", "k", 60)
    import time

    with mock.patch("edgefleet.api.sigv4.time.time", return_value=time.time() + 61):
        status, body = get(world, url)
    assert status == 403
    assert b"Request has expired" in body


def test_a_url_cannot_be_given_a_longer_life(world: ApiWorld, s3: Any) -> None:
    url = world.verifier.presign("signed", "k", 60)
    assert get(world, url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))[0] == 403
    assert get(world, url.replace("X-Amz-Expires=60", "X-Amz-Expires=99999999"))[0] == 400


def put_url(s3: Any, key: str, expires: int = 60, **arguments: Any) -> str:
    url: str = s3.generate_presigned_url(
        "put_object", {"Bucket": "put", "Key": key, **arguments}, ExpiresIn=expires, HttpMethod="PUT"
    )
    return url


def test_a_presigned_put_stores_one_object_without_credentials(world: ApiWorld, s3: Any) -> None:
    url = put_url(s3, "a/b c")
    assert get(world, url, "PUT", b"content")[0] == 200
    assert world.objects.get("put", "a/b c") == b"content"
    assert get(world, url.replace("b%20c", "other"), "PUT", b"x")[0] == 403


def test_a_url_is_for_its_method_only(world: ApiWorld, s3: Any) -> None:
    s3.put_object(Bucket="put", Key="k", Body=b"old")
    got = s3.generate_presigned_url("get_object", {"Bucket": "put", "Key": "k"}, ExpiresIn=60)
    assert get(world, got, "PUT", b"new")[0] == 403
    assert get(world, put_url(s3, "k"))[0] == 403
    assert get(world, put_url(s3, "k"), "DELETE")[0] == 403
    assert world.objects.get("put", "k") == b"old"


def test_a_signed_length_binds_the_body(world: ApiWorld, s3: Any) -> None:
    url = put_url(s3, "length", ContentLength=4)
    assert get(world, url, "PUT", b"12345")[0] == 403
    assert get(world, url, "PUT", b"1234")[0] == 200


def test_a_presigned_put_keeps_to_the_cap(world: ApiWorld, s3: Any) -> None:
    status, body = get(world, put_url(s3, "big"), "PUT", bytes(CAP + 1))
    assert status == 413
    assert b"EntityTooLarge" in body
    assert world.objects.list("put", "big") == []


def test_an_expired_put_is_refused(world: ApiWorld, s3: Any) -> None:
    url = put_url(s3, "late", expires=1)
    import time

    with mock.patch("edgefleet.api.sigv4.time.time", return_value=time.time() + 2):
        status, body = get(world, url, "PUT", b"x")
    assert (status, b"Request has expired" in body) == (403, True)
    assert world.objects.list("put", "late") == []


def test_only_s3_takes_a_presigned_put(world: ApiWorld, s3: Any) -> None:
    url = put_url(s3, "k").replace("%2Fs3%2Faws4_request", "%2Fiot%2Faws4_request")
    assert get(world, url, "PUT", b"x")[0] == 403


# The aws-chunked form.


def encode_chunks(data: bytes, size: int) -> bytes:
    body = b""
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        body += b"%x\r\n%s\r\n" % (len(piece), piece)
    return body + b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"


async def _decode(body: bytes, step: int, limit: int = 10_000) -> bytes:
    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    return b"".join([piece async for piece in _dechunked(source(), limit)])


def decode(body: bytes, step: int, limit: int = 10_000) -> bytes:
    import asyncio

    return asyncio.run(_decode(body, step, limit))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), size=st.integers(1, 100), step=st.integers(1, 64))
def test_chunks_are_decoded_however_they_are_cut(data: bytes, size: int, step: int) -> None:
    assert decode(encode_chunks(data, size), step) == data


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=60), size=st.integers(1, 30), cut=st.integers(0, 59))
def test_a_chunked_body_that_ends_early_is_refused(data: bytes, size: int, cut: int) -> None:
    body = encode_chunks(data, size)
    with pytest.raises(ApiError):
        decode(body[: min(cut, body.index(b"0\r\nx-amz"))], 7)


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"x" * 1000, b"f" * 13 + b"\r\n"])
def test_a_malformed_chunked_body_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError):
        decode(body, 64)


def test_a_chunk_cannot_announce_more_than_the_cap() -> None:
    with pytest.raises(TooLarge):
        decode(b"ffffffff\r\n", 64)

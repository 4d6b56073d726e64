# SPDX-License-Identifier: Apache-2.0
"""The front through real TLS and uvicorn, asked by boto3 and by forged requests."""

from __future__ import annotations

import datetime
import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from edgefleet.api.front import MAX_BODY
from tests.fleet.api_world import KEY, SECRET, ApiWorld, Echo


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    world = ApiWorld(tmp_path_factory.mktemp("api"), {"iot": [Echo()]})
    yield world
    world.close()


def ask(
    world: ApiWorld, method: str, target: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, str, bytes]:
    """(status, error type, body) of a request exactly as given."""
    context = ssl.create_default_context(cafile=str(world.ca))
    address = urlsplit(world.url)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=10)
    try:
        connection.request(method, target, body=body or None, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers.get("x-amzn-errortype", ""), response.read()
    finally:
        connection.close()


def signed(
    world: ApiWorld, method: str, target: str, body: bytes = b"", service: str = "iot", **extra: str
) -> dict[str, str]:
    request = AWSRequest(method, world.url + target, headers={"host": urlsplit(world.url).netloc, **extra}, data=body)
    SigV4Auth(Credentials(KEY, SECRET), service, "local-1").add_auth(request)
    return dict(request.headers.items())


# What official clients see.


def test_boto3_gets_its_answer(world: ApiWorld) -> None:
    assert world.client("iot").describe_thing(thingName="a")["thingName"] == "a"


@pytest.mark.parametrize("name", ["with.dot", "plus+sign", "at@home", "comma,equals=1"])
def test_names_with_reserved_characters_are_signed_and_routed_alike(world: ApiWorld, name: str) -> None:
    assert world.client("iot").get_policy(policyName=name)["policyName"] == name


@pytest.mark.parametrize("value", ["a+b", "a b", "a&b=c", "ä/ö", "100%"])
def test_query_values_of_any_kind_are_verified_and_decoded(world: ApiWorld, value: str) -> None:
    things = world.client("iot", parameter_validation=False).list_things(attributeValue="x", maxResults=1)["things"]
    assert things == [{"thingName": "1", "attributes": {"value": "x"}}]
    with pytest.raises(ClientError, match="regular expression") as refused:
        world.client("iot").list_things(attributeValue=value + "!")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_an_operation_that_is_not_there_yet_says_so(world: ApiWorld) -> None:
    with pytest.raises(ClientError, match="iot ListAuthorizers") as refused:
        world.client("iot").list_authorizers()
    assert refused.value.response["Error"]["Code"] == "NotImplementedException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_member_that_is_not_there_yet_is_named_not_ignored(world: ApiWorld) -> None:
    with pytest.raises(ClientError, match="thingTypeName of ListThings") as refused:
        world.client("iot").list_things(thingTypeName="t")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_service_that_is_not_served_says_so(world: ApiWorld) -> None:
    with pytest.raises(ClientError, match="greengrass"):
        world.client("greengrassv2").list_core_devices()


def test_a_fault_of_ours_is_an_internal_failure_and_nothing_is_half_applied(world: ApiWorld) -> None:
    with pytest.raises(ClientError) as refused:
        world.client("iot").delete_thing(thingName="a")
    assert refused.value.response["Error"]["Code"] == "InternalFailureException"
    assert "fault of ours" not in str(refused.value)
    assert world.outgoing == []
    with pytest.raises(ClientError, match="Internal"):  # the table of the first try is gone, or this would say so
        world.client("iot").delete_thing(thingName="a")


def test_every_answer_has_a_request_id(world: ApiWorld) -> None:
    assert world.client("iot").describe_thing(thingName="a")["ResponseMetadata"]["RequestId"]


# Who is let in.


def test_no_signature_is_refused(world: ApiWorld) -> None:
    assert ask(world, "GET", "/things", {})[:2] == (403, "MissingAuthenticationTokenException")


def test_an_unknown_key_is_refused(world: ApiWorld) -> None:
    with pytest.raises(ClientError) as refused:
        world.client("iot", key="EFLTUNKNOWNUNKNOWN00").list_things()
    assert refused.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_wrong_secret_is_refused(world: ApiWorld) -> None:
    with pytest.raises(ClientError) as refused:
        world.client("iot", secret="wrong").list_things()
    assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_that_is_far_off_is_refused(world: ApiWorld, minutes: int) -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    with mock.patch("botocore.auth.get_current_datetime", return_value=then.replace(tzinfo=None)):
        headers = signed(world, "GET", "/things")
    status, code, body = ask(world, "GET", "/things", headers)
    assert (status, code) == (403, "InvalidSignatureException")
    assert b"15 minutes" in body


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_clock_that_is_a_little_off_is_not(world: ApiWorld, minutes: int) -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    with mock.patch("botocore.auth.get_current_datetime", return_value=then.replace(tzinfo=None)):
        headers = signed(world, "GET", "/things")
    assert ask(world, "GET", "/things", headers)[0] == 200


def test_each_signed_part_is_held_against_the_signature(world: ApiWorld) -> None:
    headers = signed(world, "GET", "/things?maxResults=1", **{"x-amz-meta": "v"})
    assert ask(world, "GET", "/things?maxResults=1", headers)[0] == 200
    forged: list[tuple[str, str, dict[str, str], bytes]] = [
        ("DELETE", "/things?maxResults=1", headers, b""),
        ("GET", "/things?maxResults=2", headers, b""),
        ("GET", "/things?maxResults=1&nextToken=x", headers, b""),
        ("GET", "/things/?maxResults=1", headers, b""),
        ("GET", "/things?maxResults=1", {**headers, "x-amz-meta": "w"}, b""),
        ("GET", "/things?maxResults=1", {**headers, "host": "elsewhere"}, b""),
        ("GET", "/things?maxResults=1", headers, b"{}"),
        ("GET", "/things?maxResults=1", {k: v for k, v in headers.items() if k != "x-amz-meta"}, b""),
        (
            "GET",
            "/things?maxResults=1",
            {**headers, "Authorization": headers["Authorization"].replace("local-1", "x")},
            b"",
        ),
    ]
    for method, target, given, body in forged:
        assert ask(world, method, target, given, body)[:2] == (403, "InvalidSignatureException"), (
            method,
            target,
            given,
        )


def test_a_signed_hash_that_is_not_the_bodys_is_refused(world: ApiWorld) -> None:
    headers = signed(world, "GET", "/things", **{"x-amz-content-sha256": "0" * 64})
    assert ask(world, "GET", "/things", headers, b"{}")[:2] == (403, "InvalidSignatureException")


def test_an_unsigned_payload_is_legal_over_tls(world: ApiWorld) -> None:
    headers = signed(world, "GET", "/things", **{"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert ask(world, "GET", "/things", headers)[0] == 200


def test_the_host_must_be_signed(world: ApiWorld) -> None:
    headers = signed(world, "GET", "/things")
    headers["Authorization"] = headers["Authorization"].replace("SignedHeaders=host;", "SignedHeaders=")
    assert ask(world, "GET", "/things", headers)[:2] == (403, "InvalidSignatureException")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic eDp5",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c",
        f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/r/iot/aws4_request, SignedHeaders=host;x-amz-date, Signature=zz",
        "AWS4-HMAC-SHA256 " + "Credential=" * 5000,
    ],
)
def test_a_malformed_signature_is_refused(world: ApiWorld, authorization: str) -> None:
    status, code, _ = ask(world, "GET", "/things", {"Authorization": authorization, "X-Amz-Date": "20260101T000000Z"})
    assert (status, code) == (400, "IncompleteSignatureException")


def test_a_body_beyond_the_cap_is_refused(world: ApiWorld) -> None:
    body = b" " * (MAX_BODY + 1)
    headers = signed(world, "POST", "/things/a", body)
    status, code, _ = ask(world, "POST", "/things/a", headers, body)
    assert (status, code) == (413, "RequestEntityTooLargeException")


def test_a_validation_error_is_rest_json(world: ApiWorld) -> None:
    status, code, body = ask(world, "GET", "/things?maxResults=0", signed(world, "GET", "/things?maxResults=0"))
    assert (status, code) == (400, "InvalidRequestException")
    assert json.loads(body)["message"].startswith("1 validation error detected: Value '0' at 'maxResults'")


def test_a_query_presigned_for_another_service_works_for_get_only(world: ApiWorld) -> None:
    client: Any = world.client("iot")
    url = client.generate_presigned_url("describe_thing", {"thingName": "a"})
    target = url[len(world.url) :]
    assert ask(world, "GET", target, {})[0] == 200
    assert ask(world, "POST", target, {})[:2] == (403, "MissingAuthenticationTokenException")

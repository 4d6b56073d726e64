# SPDX-License-Identifier: Apache-2.0
"""Routes, parsing, validation and serialising, driven by botocore's models."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.api import shapes
from edgefleet.api.http import HttpRequest
from edgefleet.api.model import SERVICES, Model
from edgefleet.errors import ApiError

MODEL = Model()
SESSION = botocore.session.Session()


def operation(service: str, method: str) -> Any:
    return MODEL.operations[service][method].model


def parse(service: str, method: str, **parts: Any) -> dict[str, Any]:
    body = parts.pop("body", b"")
    raw = json.dumps(body).encode() if isinstance(body, dict) else body
    defaults: dict[str, Any] = {"path": {}, "query": {}, "headers": {}}
    return shapes.parse(operation(service, method), **{**defaults, **parts}, body=raw)


# Routes.


@pytest.mark.parametrize(
    ("service", "method", "path", "name", "members"),
    [
        ("iot", "GET", "/things/a/jobs/b", "DescribeJobExecution", {"thingName": "a", "jobId": "b"}),
        ("iot-jobs-data", "GET", "/things/a/jobs/b", "DescribeJobExecution", {"thingName": "a", "jobId": "b"}),
        ("iot-jobs-data", "PUT", "/things/a/jobs/$next", "StartNextPendingJobExecution", {"thingName": "a"}),
        ("iot", "GET", "/things", "ListThings", {}),
        ("iot", "GET", "/things/", "ListThings", {}),
        ("iotdata", "POST", "/topics/edge%2Fa%2Fb", "Publish", {"topic": "edge/a/b"}),
        ("iot", "DELETE", "/destinations/arn/with/slashes", "DeleteTopicRuleDestination", {"arn": "arn/with/slashes"}),
        ("iot", "GET", "/policies/a%20b%2Bc", "GetPolicy", {"policyName": "a b+c"}),
    ],
)
def test_a_request_is_matched_by_service_method_and_raw_path(
    service: str, method: str, path: str, name: str, members: dict[str, str]
) -> None:
    found, uri = MODEL.find(service, method, path)
    assert (found.service, found.name, uri) == (service, name, members)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PUT", "/jobs"), ("GET", "/"), ("GET", "//")])
def test_a_path_of_no_operation_is_404(method: str, path: str) -> None:
    with pytest.raises(ApiError) as refused:
        MODEL.find("iot", method, path)
    assert (refused.value.code, refused.value.status) == ("UnknownOperationException", 404)


def test_the_data_service_is_known_by_its_other_signing_name() -> None:
    assert MODEL.service("iotdevicegateway") == "iotdata"
    assert MODEL.service("greengrass") is None


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_is_found_by_the_request_that_botocore_builds_for_it(service: str) -> None:
    """Whatever botocore sends for an operation, with text for every path member, comes back as that operation."""
    model = SESSION.get_service_model(service)
    for name in model.operation_names:
        target = model.operation_model(name)
        shape = target.input_shape
        path = {} if shape is None else {
            member: 7 if s.type_name in ("integer", "long") else "a/b c"
            for member, s in shape.members.items()
            if s.serialization.get("location") == "uri"
        }  # fmt: skip
        request = create_serializer("rest-json", False).serialize_to_request(path, target)
        raw_path = request["url_path"].partition("?")[0]
        found, members = MODEL.find(model.signing_name, request["method"], raw_path)
        assert found.name == name
        assert members == {
            shape.members[member].serialization.get("name", member): str(value)
            for member, value in path.items()
            if shape is not None
        }


# Parsing.


def test_members_come_from_path_query_header_and_body() -> None:
    assert parse(
        "iot", "create_thing", path={"thingName": "a"},
        body={"thingTypeName": "t", "attributePayload": {"attributes": {}}},
    ) == {"thingName": "a", "thingTypeName": "t", "attributePayload": {"attributes": {}}}  # fmt: skip
    assert parse("iot", "attach_thing_principal", path={"thingName": "a"}, headers={"x-amzn-principal": "arn"}) == {
        "thingName": "a",
        "principal": "arn",
    }
    assert parse("iot", "list_things", query={"maxResults": ["3"], "attributeName": ["n"]}) == {
        "maxResults": 3,
        "attributeName": "n",
    }


def test_a_blob_payload_is_the_raw_body() -> None:
    found = parse("iotdata", "update_thing_shadow", path={"thingName": "a"}, query={"name": ["n"]}, body=b"\x00raw")
    assert found == {"thingName": "a", "shadowName": "n", "payload": b"\x00raw"}


def test_unknown_and_null_members_are_ignored() -> None:
    body = {"thingTypeName": None, "noSuchMember": 1}
    assert parse("iot", "create_thing", path={"thingName": "a"}, body=body) == {"thingName": "a"}


def test_a_timestamp_is_epoch_seconds_whatever_its_form() -> None:
    found = parse(
        "iot", "list_audit_tasks", query={"startTime": ["2026-01-02T03:04:05Z"], "endTime": ["2026-01-02T03:04:06"]}
    )
    assert found["startTime"] == 1767323045.0
    assert found["endTime"] == 1767323046.0


@pytest.mark.parametrize(
    ("method", "parts", "message"),
    [
        ("create_thing", {"body": b"{"}, "body is refused"),
        ("create_thing", {"body": b"[1]"}, "must be a JSON object"),
        ("create_thing", {"body": b'{"thingTypeName":NaN}'}, "body is refused"),
        ("create_thing", {"body": b"[" * 100000}, "nesting"),
        (
            "create_thing",
            {"body": {"thingTypeName": 3}},
            "'thingTypeName' failed to satisfy constraint: Member must be a str",
        ),
        ("create_thing", {"body": {"attributePayload": []}}, "'attributePayload'"),
        ("create_thing", {"body": {"attributePayload": {"attributes": {"a": 1}}}}, "'attributePayload.attributes.a'"),
        ("create_thing", {"body": {"attributePayload": {"merge": "yes"}}}, "'attributePayload.merge'"),
        ("list_things", {"query": {"maxResults": ["many"]}}, "'maxResults'"),
        ("list_things", {"query": {"usePrefixAttributeValue": ["1"]}}, "'usePrefixAttributeValue'"),
        ("list_audit_tasks", {"query": {"startTime": ["yesterday"], "endTime": ["x"]}}, "'startTime'"),
        ("delete_thing", {"query": {"expectedVersion": ["9" * 30]}}, "'expectedVersion'"),
    ],
)
def test_what_cannot_be_read_names_the_member(method: str, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message.replace("[", r"\[")) as refused:
        parse("iot", method, path={"thingName": "a"}, **parts)
    assert (refused.value.code, refused.value.status) == ("InvalidRequestException", 400)


# Validation.


@pytest.mark.parametrize(
    ("method", "members", "message"),
    [
        ("create_job", {"jobId": "j"}, "Value null at 'targets' failed to satisfy constraint: Member must not be null"),
        ("create_thing", {"thingName": "a b"}, "Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+"),
        ("create_thing", {"thingName": "ü"}, "regular expression"),
        ("create_policy", {"policyName": "é", "policyDocument": "{}"}, "'policyName'"),  # Java's \w is ASCII
        ("create_thing", {"thingName": "a" * 129}, "length less than or equal to 128"),
        ("create_thing", {"thingName": "a\n"}, "regular expression"),
        ("create_job", {"jobId": "j", "targets": []}, "Value at 'targets' failed to satisfy constraint: Member must "
                                                      "have length greater than or equal to 1"),
        ("create_job", {"jobId": "j", "targets": ["t"], "targetSelection": "SOME"}, "enum value set: [CONTINUOUS, SN"),
        ("create_job", {"jobId": "j", "targets": ["t"], "description": "bell\a"}, "'description'"),
        ("search_index", {"queryString": ""}, "'queryString'"),
        ("list_jobs", {"maxResults": 0}, "value greater than or equal to 1"),
        ("create_job", {"jobId": "j", "targets": ["t"], "timeoutConfig": {}, "abortConfig": {}}, "'abortConfig.crit"),
    ],
)  # fmt: skip
def test_a_broken_constraint_is_told_in_the_services_words(method: str, members: dict[str, Any], message: str) -> None:
    found = shapes.violations(operation("iot", method).input_shape, members)
    assert any(message in text for text in found), found


def test_all_violations_are_counted_in_one_error() -> None:
    with pytest.raises(ApiError, match=r"^2 validation errors detected: ") as refused:
        parse("iot", "create_job", path={"jobId": "a b"})
    assert "'jobId'" in refused.value.message
    assert "'targets'" in refused.value.message


def test_a_long_wrong_value_is_not_repeated_whole() -> None:
    found = shapes.violations(operation("iot", "create_thing").input_shape, {"thingName": "?" * 5000})
    assert all(len(text) < 400 for text in found)


def test_a_sensitive_value_is_not_repeated() -> None:
    found = shapes.violations(operation("iot", "get_thing_connectivity_data").input_shape, {"thingName": "sec ret"})
    assert found and "sec ret" not in found[0]


def test_descriptions_in_any_language_are_legal() -> None:
    found = shapes.violations(
        operation("iot", "create_job").input_shape, {"jobId": "j", "targets": ["t"], "description": "größer 温度 🙂"}
    )
    assert found == []


# Serialising: what botocore parses back is what the operation returned.


def answer(service: str, method: str, result: dict[str, Any]) -> dict[str, Any]:
    found = MODEL.operations[service][method]
    status, headers, body = shapes.serialise(found.model, found.status, result)
    parser = create_parser("rest-json")
    parsed: dict[str, Any] = parser.parse(
        {"status_code": status, "headers": headers, "body": body}, found.model.output_shape
    )
    parsed.pop("ResponseMetadata")
    return parsed


def test_timestamps_and_nested_members_survive_the_wire() -> None:
    parsed = answer(
        "iot", "describe_job", {"job": {"jobId": "j", "createdAt": 1767323045.5, "targets": ["a"], "comment": None}}
    )
    assert parsed["job"]["createdAt"].timestamp() == 1767323045.5
    assert parsed["job"]["targets"] == ["a"]
    assert "comment" not in parsed["job"]


def test_a_shadow_is_answered_raw() -> None:
    found = MODEL.operations["iotdata"]["get_thing_shadow"]
    assert shapes.serialise(found.model, 200, {"payload": b'{"a": 1}'})[2] == b'{"a": 1}'


def test_an_operation_without_output_answers_an_empty_object_or_nothing() -> None:
    assert answer("iot", "delete_thing", {}) == {}


def test_a_result_member_that_the_model_does_not_have_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert answer("iot", "describe_thing", {"thingName": "a", "invented": 1}) == {"thingName": "a"}
    assert "invented" in caplog.text


SIMPLE = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)  # fmt: skip # noqa: E501


@settings(max_examples=150, deadline=None)
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "targets": SIMPLE,
            "document": SIMPLE,
            "description": SIMPLE,
            "abortConfig": SIMPLE,
            "timeoutConfig": st.fixed_dictionaries({"inProgressTimeoutInMinutes": SIMPLE}),
            "tags": SIMPLE,
        },
    )
)
def test_any_json_body_is_either_parsed_or_refused(body: dict[str, Any]) -> None:
    try:
        parse("iot", "create_job", path={"jobId": "j"}, body=body)
    except ApiError as refused:
        assert refused.status == 400


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=64))
def test_any_bytes_as_body_are_either_parsed_or_refused(raw: bytes) -> None:
    try:
        parse("iot", "create_thing", path={"thingName": "a"}, body=raw)
    except ApiError as refused:
        assert refused.status == 400


def test_every_location_and_type_of_the_models_is_one_that_the_parser_knows() -> None:
    known = {
        *((place, kind) for place in ("uri", "querystring", "header")
          for kind in ("string", "integer", "long", "boolean", "timestamp", "double", "float")),
        *((None, kind) for kind in ("string", "integer", "long", "boolean", "timestamp", "double", "float", "structure",
                                    "list", "map", "blob")),
    }  # fmt: skip
    for table in MODEL.operations.values():
        for entry in table.values():
            shape = entry.model.input_shape
            for member in (shape.members if shape else {}).values():
                assert (member.serialization.get("location"), member.type_name) in known, entry.name


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def test_the_query_string_is_decoded_and_the_path_is_not() -> None:
    scope = {"method": "GET", "raw_path": b"/policies/a%2Fb", "path": "/policies/a/b", "query_string": b"a=b+c&a=%2B",
             "headers": [(b"Host", b"h"), (b"X", b"1"), (b"x", b"2")]}  # fmt: skip
    request = HttpRequest.of(scope, _nothing)
    assert request.path == "/policies/a%2Fb"
    assert request.query == [("a", "b c"), ("a", "+")]
    assert request.headers == {"host": "h", "x": "1,2"}


def test_a_query_string_of_thousands_of_names_is_refused() -> None:
    scope = {"method": "GET", "raw_path": b"/", "path": "/", "query_string": b"&".join([b"a=1"] * 5000), "headers": []}
    with pytest.raises(ApiError):
        HttpRequest.of(scope, _nothing)

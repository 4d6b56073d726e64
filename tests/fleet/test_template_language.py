# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ApiError
from edgefleet.provisioning import language
from edgefleet.provisioning.expressions import TEXT_CHARACTERS, Unresolved

CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:*", "Resource": "arn:aws:iot:*:*:*/${iot:Connection.Thing.ThingName}"}
    ],
}


def thing(name: Any = "pump", **properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name, **properties}}


def template(resources: Any = None, parameters: Any = None, **more: Any) -> dict[str, Any]:
    declared = {name: {"Type": "String"} for name in ("Serial", "Site")} if parameters is None else parameters
    return {"Parameters": declared, "Resources": {"t": thing()} if resources is None else resources, **more}


def parse(document: Any, fleet: bool = False) -> language.Template:
    return language.parse(document if isinstance(document, str) else json.dumps(document), fleet)


def named(expression: Any, values: dict[str, str] | None = None, **more: Any) -> str:
    """What an expression gives as the name of a thing."""
    wanted = parse(template({"t": thing(expression)}, **more)).evaluate(values or {})
    assert wanted.thing is not None
    return wanted.thing.name


# Functions


def test_ref_is_the_parameter_or_its_default() -> None:
    assert named({"Ref": "Serial"}, {"Serial": "17"}) == "17"
    declared = {"Serial": {"Type": "String", "Default": "none"}}
    assert named({"Ref": "Serial"}, {}, parameters=declared) == "none"
    assert named({"Ref": "Serial"}, {"Serial": "17"}, parameters=declared) == "17"


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(Unresolved, match="Cannot resolve reference value: Serial"):
        named({"Ref": "Serial"}, {"Site": "north"})


def test_unknown_parameters_and_unused_missing_ones_do_not_matter() -> None:
    assert named({"Ref": "Serial"}, {"Serial": "17", "other": "x"}) == "17"


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ({"Fn::Join": ["-", ["pump", {"Ref": "Serial"}]]}, "pump-17"),
        ({"Fn::Join": ["", []]}, ""),
        ({"Fn::Join": ["+", {"Fn::Split": ["-", {"Ref": "Site"}]}]}, "north+hall"),
        ({"Fn::Select": [1, ["a", "b"]]}, "b"),
        ({"Fn::Select": ["0", {"Fn::Split": ["-", {"Ref": "Site"}]}]}, "north"),
        ({"Fn::Select": [{"Ref": "Index"}, ["a", "b"]]}, "b"),
        ({"Fn::FindInMap": ["M", {"Ref": "Site"}, "url"]}, "u-north"),
        ({"Fn::Sub": "pump-${Serial}-${!Serial}"}, "pump-17-${Serial}"),
        ({"Fn::Sub": ["${Name}/${Serial}", {"Name": {"Fn::Select": [0, [{"Ref": "Site"}]]}}]}, "north-hall/17"),
        ({"Fn::Sub": ["${Serial}", {"Serial": "own"}]}, "own"),
    ],
)
def test_functions(expression: Any, result: str) -> None:
    declared = {name: {"Type": "String"} for name in ("Serial", "Site", "Index")}
    mappings = {"M": {"north-hall": {"url": "u-north"}}}
    values = {"Serial": "17", "Site": "north-hall", "Index": "1"}
    assert named(expression, values, parameters=declared, Mappings=mappings) == result


def test_values_of_parameters_are_not_expanded() -> None:
    assert named({"Fn::Sub": "${Serial}"}, {"Serial": "${Site}", "Site": "x"}) == "${Site}"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"Fn::Select": [{"Ref": "Serial"}, ["a"]]}, "index '17' does not choose"),
        ({"Fn::FindInMap": ["M", {"Ref": "Serial"}, "b"]}, "no M.17.b"),
        ({"Fn::FindInMap": [{"Ref": "Serial"}, "a", "b"]}, "no 17.a.b"),
    ],
)
def test_a_look_up_that_fails_says_where(expression: Any, message: str) -> None:
    with pytest.raises(Unresolved, match=message):
        named(expression, {"Serial": "17"}, Mappings={"M": {"a": {"b": "c"}}})


def test_a_result_cannot_fill_the_memory() -> None:
    many = {"Fn::Join": ["", [{"Ref": "Serial"}] * 400]}
    with pytest.raises(Unresolved, match=f"at most {TEXT_CHARACTERS}"):
        named(many, {"Serial": "x" * 100_000})


# Whole templates


def test_a_fleet_template_is_evaluated() -> None:
    document = template(
        {
            "thing": {
                **thing(
                    {"Fn::Join": ["", ["pump-", {"Ref": "Serial"}]]},
                    AttributePayload={"site": {"Ref": "Site"}},
                    ThingTypeName="pump",
                    ThingGroups=["north", {"Ref": "Site"}],
                ),
                "OverrideSettings": {"AttributePayload": "MERGE"},
            },
            "certificate": CERTIFICATE,
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "devices"}},
        },
        DeviceConfiguration={"url": {"Fn::Sub": "https://${Site}"}},
    )
    wanted = parse(document, fleet=True).evaluate({"Serial": "17", "Site": "s", "AWS::IoT::Certificate::Id": "ab"})
    assert wanted.thing is not None and wanted.certificate is not None
    assert (wanted.thing.name, wanted.thing.type_name) == ("pump-17", "pump")
    assert (wanted.thing.attributes, wanted.thing.groups) == ({"site": "s"}, ["north", "s"])
    assert (wanted.certificate.source, wanted.certificate.value) == ("CertificateId", "ab")
    assert (wanted.certificate.status, wanted.certificate.exclusive) == ("ACTIVE", False)
    assert [policy.name for policy in wanted.policies] == ["devices"]
    assert wanted.device_configuration == {"url": "https://s"}


@pytest.mark.parametrize("document", [POLICY, json.dumps(POLICY)])
def test_policy_variables_pass_through_untouched(document: Any) -> None:
    resources = {"c": CERTIFICATE, "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}}
    text = parse(template(resources), fleet=True).evaluate({"AWS::IoT::Certificate::Id": "x"}).policies[0].document
    assert json.loads(text or "") == POLICY


def properties(**changes: Any) -> dict[str, Any]:
    return {"c": {**CERTIFICATE, "Properties": {**CERTIFICATE["Properties"], **changes}}}  # type: ignore[dict-item]


def policy(**given: Any) -> dict[str, Any]:
    return {"c": CERTIFICATE, "p": {"Type": "AWS::IoT::Policy", "Properties": given}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"Resources":' + "[" * 1000, "nesting"),
        ('{"x":"' + "x" * 10240 + '"}', "at most 10240"),
        ({"Resource": {}}, "Resource: is not a member"),
        (template(parameters={"Serial": {"Type": "Number"}}), "Parameters.Serial.Type"),
        (
            template(parameters={"Serial": {"Type": "String", "Default": 7}}),
            "Parameters.Serial.Default: must be a string",
        ),
        (template(parameters=[]), "Parameters: must be an object"),
        (template(Mappings={"M": {"a": {"b": {"Ref": "Serial"}}}}), "Mappings.M.a.b: must be a string"),
        (template({}), "Resources: exactly one AWS::IoT::Certificate"),
        ({"Resources": None}, "Resources: must be an object"),
        (template({"t": {"Type": "AWS::S3::Bucket", "Properties": {}}}), "Resources.t.Type: must be one of"),
        (template({"t": {"Type": ["x"], "Properties": {}}}), "Resources.t.Type: must be one of"),
        (template({"t": {"Type": "AWS::IoT::Thing"}}), "Resources.t.Properties: must be an object"),
        (
            template({"t": {"Type": "AWS::IoT::Thing", "Properties": {}}}),
            "Resources.t.Properties.ThingName: is required",
        ),
        (template({"t": thing(7)}), "ThingName: must be a string or a function, not a number"),
        (template({"t": thing({"Ref": "Nobody"})}), "ThingName.Ref: 'Nobody' is not declared"),
        (template({"t": thing({"Fn::GetAtt": []})}), "ThingName: must be one of"),
        (template({"t": thing({"Fn::Join": "x"})}), r"Fn::Join: must be \[separator"),
        (template({"t": thing({"Fn::Join": ["", ["a", {"Ref": "No"}]]})}), r"Fn::Join\[1\]\[1\].Ref: 'No' is not"),
        (template({"t": thing({"Fn::Split": ["", "x"]})}), "gives a list"),
        (template({"t": thing(ThingGroups={"Ref": "Site"})}), "ThingGroups.Ref: gives one string where a list"),
        (template({"t": thing({"Fn::Sub": "${Nobody}"})}), "Fn::Sub: 'Nobody' is not declared"),
        (template({"t": thing({"Fn::FindInMap": ["No", "a", "b"]})}), r"FindInMap\[0\]: 'No' is not in Mappings"),
        (template({"t": thing(BillingGroup="b")}), "Properties.BillingGroup: is not supported"),
        (template({"t": thing(PackageVersions={})}), "Properties.PackageVersions: is not supported"),
        (
            template({"t": {**thing(), "OverrideSettings": {"ThingTypeName": "MERGE"}}}),
            "OverrideSettings.ThingTypeName",
        ),
        (template({"t": {**thing(), "OverrideSettings": {"Name": "FAIL"}}}), "OverrideSettings.Name: is not supported"),
        (template({"a": thing(), "b": thing()}), "at most one AWS::IoT::Thing"),
        (template({"a": CERTIFICATE, "b": CERTIFICATE}), "one AWS::IoT::Certificate"),
        (template({"t": thing()}), "exactly one AWS::IoT::Certificate is allowed, not 0"),
        (template(properties(CertificateId="abc")), "Resources.c.Properties.CertificateId: must be"),
        (template(properties(Status=None)), "Resources.c.Properties.Status: must be Active"),
        (template(properties(Status={"Ref": "Site"})), "Resources.c.Properties.Status: must be Active"),
        (template(properties(CertificatePem="x")), "needs one of"),
        (template(policy()), "Resources.p.Properties: needs either"),
        (template(policy(PolicyName="a", PolicyDocument="b")), "Resources.p.Properties: needs either"),
        (template(policy(PolicyDocument="{}")), "PolicyDocument: Policy document is malformed"),
        (template(policy(PolicyName={"Fn::Join": ["", ["a"]]})), "Fn::Join: is not allowed in a policy"),
        (template({"c": CERTIFICATE}, DeviceConfiguration={"a": {"b": "c"}}), "DeviceConfiguration.a: must be one of"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_the_member(document: Any, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse(document, fleet=True)
    assert caught.value.code == "InvalidRequestException"
    assert caught.value.message.startswith("The template body is invalid: ")


def test_a_bulk_template_needs_no_certificate() -> None:
    assert parse(template()).certificate is None


def test_a_template_makes_something() -> None:
    with pytest.raises(ApiError, match="Resources: must have an AWS::IoT::Thing or"):
        parse(template({}))


def test_a_policy_without_a_certificate_is_refused() -> None:
    resources = {"t": thing(), "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}
    with pytest.raises(ApiError, match="needs an AWS::IoT::Certificate"):
        parse(template(resources))


_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(["Serial", "AWS::IoT::Thing", "String"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Type",
                    "Properties",
                    "ThingName",
                    "Ref",
                    "Fn::Join",
                    "Fn::Sub",
                    "Fn::Select",
                    "Fn::Split",
                    "x",
                    "Status",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(
    st.dictionaries(st.sampled_from(["Parameters", "Mappings", "Resources", "DeviceConfiguration"]), _VALUES),
    st.booleans(),
)
def test_any_json_is_read_or_refused_as_invalid(document: Any, fleet: bool) -> None:
    try:
        parse(document, fleet)
    except ApiError as error:
        assert error.code == "InvalidRequestException"


@given(_VALUES, st.dictionaries(st.sampled_from(["Serial", "Site"]), st.text(max_size=5)))
def test_any_expression_gives_a_string_or_one_of_two_errors(expression: Any, parameters: dict[str, str]) -> None:
    with contextlib.suppress(ApiError, Unresolved):
        assert isinstance(named(expression, parameters), str)

# SPDX-License-Identifier: Apache-2.0
"""The operator's commands against a real site."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet import cli
from edgefleet.commands import register
from edgefleet.errors import InputError
from tests.fleet.site_world import SiteWorld

TEMPLATE = {
    "Parameters": {
        "SerialNumber": {"Type": "String"},
        "Type": {"Type": "String"},
        "Site": {"Type": "String", "Default": "unknown"},
    },
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "SerialNumber"},
                "ThingTypeName": {"Ref": "Type"},
                "AttributePayload": {"site": {"Ref": "Site"}},
            },
        }
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteWorld]:
    world = SiteWorld(tmp_path_factory.mktemp("site") / "data")
    iot = world.client("iot")
    iot.create_thing_type(thingTypeName="ESP32")
    iot.create_thing(thingName="dev1", thingTypeName="ESP32", attributePayload={"attributes": {"site": "berlin"}})
    iot.create_thing(thingName="dev2")
    iot.create_thing_group(thingGroupName="all")
    for name in ("dev1", "dev2"):
        iot.add_thing_to_thing_group(thingGroupName="all", thingName=name)
    world.client("iot-data").update_thing_shadow(
        thingName="dev1", payload=b'{"state":{"reported":{"firmware":"1.2.0","note":"[red]not markup[/]"}}}'
    )
    yield world
    world.close()


@pytest.fixture
def run(world: SiteWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """run(*arguments) -> (exit code, stdout, stderr), against the module's site by EDGEFLEET_DATA."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDGEFLEET_DATA", str(world.data))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def template(folder: Path, document: Any = TEMPLATE) -> str:
    path = folder / "template.json"
    path.write_text(json.dumps(document))
    return str(path)


# Looking.


def test_things_are_listed(run: Any) -> None:
    code, out, _ = run("things", "list")
    assert code == 0
    assert "dev1" in out and "ESP32" in out and "site=berlin" in out


def test_a_listing_for_machines_is_json(run: Any) -> None:
    code, out, _ = run("things", "list", "--type", "ESP32", "--json")
    assert code == 0
    assert "dev1" in [thing["thingName"] for thing in json.loads(out)]
    assert "dev2" not in out


def test_a_thing_is_shown_with_what_it_reports_as_it_stands(run: Any) -> None:
    code, out, _ = run("things", "show", "dev1")
    assert code == 0
    assert "1.2.0" in out and "[red]not markup[/]" in out and "all" in out
    assert json.loads(run("--json", "things", "show", "dev1")[1])["shadow"]["state"]["reported"]["firmware"] == "1.2.0"


def test_a_thing_without_a_shadow_is_shown_too(run: Any) -> None:
    assert run("things", "show", "dev2")[0] == 0


def test_the_fleet_is_searched(run: Any) -> None:
    code, out, _ = run("search", "shadow.reported.firmware:1.*")
    assert code == 0
    assert "dev1" in out and "dev2" not in out and "1 found" in out
    assert [t["thingName"] for t in json.loads(run("search", "thingName:dev*", "--json")[1])] == ["dev1", "dev2"]


# Errors: one line, no traceback.


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("things", "show", "nobody"), 1, "ResourceNotFoundException"),
        (("search", "((("), 2, "Exception"),
        (("things", "list", "--data", "nowhere"), 2, "nowhere: holds no site"),
        (("things", "list", "--profile", "no-such-profile"), 2, "no-such-profile"),
        (("things", "list", "--endpoint-url", "not a url", "--region", "x"), 2, "not a url"),
        (
            ("job", "create", "j", "--operation", "reboot", "--target", "dev1"),
            2,
            "must be thing/NAME, group/NAME or an ARN",
        ),
        (("job", "create", "j", "--operation", "reboot", "--target", "thing/nobody"), 1, "ResourceNotFoundException"),
        (("job", "create", "j", "--document", "none.json", "--target", "thing/dev1"), 2, "none.json"),
        (("job", "show", "nothing"), 1, "ResourceNotFoundException"),
        (("device", "prepare", "x", "--serial", "s", "--board", "linux", "--attribute", "a"), 2, "NAME=VALUE"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("edgefleet: ") and len(err.strip().splitlines()) == 1


def test_wrong_usage_exits_with_2(run: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        run("things", "teleport")
    assert ended.value.code == 2


def test_a_site_that_is_down_is_one_clear_line(run: Any, tmp_path: Path) -> None:
    world = SiteWorld(tmp_path / "data")
    world.close()
    code, out, err = run("things", "list", "--data", str(tmp_path / "data"))
    assert (code, out) == (1, "")
    assert "Could not connect" in err and len(err.strip().splitlines()) == 1


def test_an_aws_profile_of_the_user_is_used_as_it_is(
    run: Any, world: SiteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", world.ready.aws_config)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", world.ready.aws_credentials)
    monkeypatch.setenv("EDGEFLEET_DATA", "nowhere")
    assert "dev1" in run("things", "list", "--profile", "edgefleet")[1]


def test_settings_of_the_environment_do_not_reach_a_site_given_by_folder(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://192.0.2.1:1")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    monkeypatch.setenv("AWS_PROFILE", "other")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:1")
    assert "dev1" in run("things", "list")[1]


# Jobs.


def test_a_job_is_created_watched_and_shown(run: Any, world: SiteWorld) -> None:
    assert run("job", "create", "reboot-1", "--operation", "reboot", "--target", "group/all")[0] == 0
    code, out, err = run("job", "watch", "reboot-1", "--timeout", "0")
    assert code == 1 and "2 QUEUED" in err
    jobs = world.client("iot-jobs-data")
    for name, status, details in (("dev1", "SUCCEEDED", {}), ("dev2", "FAILED", {"reason": "no battery"})):
        jobs.update_job_execution(jobId="reboot-1", thingName=name, status=status, statusDetails=details)
    code, out, _ = run("job", "watch", "reboot-1", "--timeout", "10")
    assert code == 1
    assert "SUCCEEDED 1" in out and "FAILED 1" in out and "2/2" in out and "no battery" in out
    code, out, _ = run("job", "show", "reboot-1", "--json")
    shown = json.loads(out)
    assert code == 0
    assert {e["thing"]: e["status"] for e in shown["executions"]} == {"dev1": "SUCCEEDED", "dev2": "FAILED"}
    assert json.loads(shown["document"]) == {"operation": "reboot"}
    assert run("job", "show", "reboot-1")[0] == 0


def test_a_job_that_succeeds_everywhere_ends_the_watch_with_0(run: Any, world: SiteWorld) -> None:
    run("job", "create", "ok-1", "--operation", "reboot", "--target", "thing/dev1", "--json")
    world.client("iot-jobs-data").update_job_execution(jobId="ok-1", thingName="dev1", status="SUCCEEDED")
    code, out, _ = run("job", "watch", "ok-1", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["executions"] == {"SUCCEEDED": 1}


def test_a_job_document_from_a_file_goes_as_it_is(run: Any, world: SiteWorld, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{"operation": "ota", "stream": "s"}')
    assert run("job", "create", "doc-1", "--document", str(tmp_path / "d.json"), "--target", "thing/dev1")[0] == 0
    assert json.loads(world.client("iot").get_job_document(jobId="doc-1")["document"])["stream"] == "s"


@pytest.mark.parametrize("text", ["{", "[]", "x" * 40000])
def test_a_job_document_that_is_none_is_refused(run: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    assert run("job", "create", "bad-1", "--document", str(tmp_path / "d.json"), "--target", "thing/dev1")[0] == 2


# Registering.


def test_a_csv_file_is_registered_and_bad_lines_are_reported_by_number(
    run: Any, world: SiteWorld, tmp_path: Path
) -> None:
    lines = ["SerialNumber,Type,Site"]
    lines += [f"csv-{n},ESP32,osaka" for n in range(600)]
    lines[10:10] = ["with space,ESP32,osaka", "csv-x,ESP8266,osaka", "short,ESP32", '"stray,ESP32,osaka', ""]
    (tmp_path / "factory.csv").write_text("\n".join(lines) + "\n")
    code, out, err = run("things", "register", str(tmp_path / "factory.csv"), "--template", template(tmp_path))
    assert code == 2
    assert "600 registered, 4 failed" in out
    for number, reason in ((11, ""), (12, "ESP8266"), (13, "has 2 columns, the header has 3"), (14, "is not CSV")):
        assert f"factory.csv:{number}: " in out and reason in out
    found = world.client("iot").search_index(queryString="thingName:csv-5*  AND attributes.site:osaka", maxResults=250)
    assert len(found["things"]) == 111
    assert err == ""


def test_an_ndjson_file_is_registered(run: Any, tmp_path: Path) -> None:
    rows = [
        {"SerialNumber": "nd-1", "Type": "ESP32"},
        {"SerialNumber": "nd-2", "Type": 7},
        {"SerialNumber": "nd-3", "Type": "ESP32"},
    ]
    (tmp_path / "f.ndjson").write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json\n")
    code, out, _ = run("things", "register", str(tmp_path / "f.ndjson"), "--template", template(tmp_path), "--json")
    report = json.loads(out)
    assert (code, report["successCount"], report["failureCount"]) == (2, 2, 2)
    assert report["errors"] == [
        {"line": 2, "message": "the value of Type must be text"},
        {"line": 4, "message": "is not JSON"},
    ]


def test_a_file_without_a_fault_exits_with_0(run: Any, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"\xef\xbb\xbfSerialNumber,Type,Colour\r\nfine-1,ESP32,red\r\n")
    code, out, err = run("things", "register", str(tmp_path / "f.csv"), "--template", template(tmp_path))
    assert code == 0
    assert "1 registered, 0 failed" in out
    assert "column 'Colour' is not a parameter of the template" in err


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("f.csv", b"", "header line is missing"),
        ("f.csv", b"SerialNumber\nx\n", "the template needs column Type"),
        ("f.csv", b"SerialNumber,SerialNumber,Type\na,b,c\n", "repeated column name"),
        ("f.csv", b"SerialNumber,Type\n", "no line can be registered"),
        ("f.csv", b"SerialNumber,Type\na\nb\n", "line 2: has 1 columns"),
        ("f.ndjson", b"\n\n", "no line can be registered"),
        ("f.ndjson", b"[]\n", "line 1: is not a JSON object"),
        ("f.xlsx", b"", "must be .csv, .ndjson or .jsonl"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused_before_anything_is_sent(
    run: Any, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    code, _, err = run("things", "register", str(tmp_path / name), "--template", template(tmp_path))
    assert code == 2
    assert message in err


def test_a_template_that_is_none_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("SerialNumber,Type\na,ESP32\n")
    assert run("things", "register", str(tmp_path / "f.csv"), "--template", template(tmp_path, []))[0] == 2
    code, _, err = run(
        "things", "register", str(tmp_path / "f.csv"), "--template", template(tmp_path, {"Resources": {}})
    )
    assert code == 2
    assert "StartThingRegistrationTask" in err


def test_every_line_of_a_file_is_either_uploaded_or_has_a_problem(tmp_path: Path) -> None:
    """Quotes, wrong encodings and monsters spoil their own line and no other."""
    good = "good-{0},ESP32,x"
    bad = [b'"open,ESP32,x', b"\xff\xfe,ESP32,x", b"a,b,c,d", b"z" * (register.LINE_BYTES + 10), b'"a""b",ESP32,"c,d"']
    lines = [b"SerialNumber,Type,Site"]
    for n in range(5):
        lines += [good.format(n).encode(), bad[n]]
    (tmp_path / "f.csv").write_bytes(b"\n".join(lines))
    target = io.BytesIO()
    found = register.convert(tmp_path / "f.csv", TEMPLATE, target)
    rows = [json.loads(line) for line in target.getvalue().splitlines()]
    assert found.lines == list(range(2, 12))
    assert sorted(found.problems) == [3, 5, 7, 9]
    assert [row["SerialNumber"] for row in rows if isinstance(row, dict)] == [*(f"good-{n}" for n in range(5)), 'a"b']
    assert sum(isinstance(row, list) for row in rows) == 4


def test_an_input_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "FILE_BYTES", 100)
    (tmp_path / "f.csv").write_text("SerialNumber,Type,Site\n" + "a,b,c\n" * 10)
    with pytest.raises(InputError, match="exceeds 100 bytes"):
        register.convert(tmp_path / "f.csv", TEMPLATE, io.BytesIO())


# Devices.


def test_a_linux_device_is_prepared_from_the_site(run: Any, world: SiteWorld, tmp_path: Path) -> None:
    code, out, _ = run(
        "device", "prepare", str(tmp_path / "pi"), "--serial", "pi1", "--board", "linux", "--attribute", "a=b"
    )
    assert code == 0
    assert "edgeagent run --config" in out
    config = json.loads((tmp_path / "pi" / "agent.json").read_text())
    assert (config["endpoint"], config["port"]) == (world.ready.endpoint, world.ready.mqtt_port)
    assert config["claim"]["parameters"] == {"SerialNumber": "pi1"}
    assert config["claim"]["csr"] is True
    assert config["attributes"] == {"a": "b"}


def test_a_board_is_prepared_from_the_site(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("device", "prepare", str(tmp_path / "b"), "--serial", "b1", "--board", "ESP32_GENERIC")
    assert code == 0
    assert "mpremote cp -r" in out
    assert (tmp_path / "b" / "main.py").exists()
    assert list((tmp_path / "b" / "lib" / "edgeagent").glob("*.mpy"))

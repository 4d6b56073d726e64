# SPDX-License-Identifier: Apache-2.0
"""Bulk registration: a file of lines becomes things, whatever is in it and whenever the process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError
from edgefleet.pki import Authority
from edgefleet.provisioning import bulk
from edgefleet.provisioning.bulk import BulkTasks
from edgefleet.registry import groups, things, types
from edgefleet.store import Store
from tests.support import ROOT

TEMPLATE = json.dumps(
    {
        "Parameters": {"Name": {"Type": "String"}, "Site": {"Type": "String", "Default": "north"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "Name"}, "AttributePayload": {"site": {"Ref": "Site"}}},
            }
        },
    }
)


class World:
    def __init__(self, folder: Path, authority: Authority) -> None:
        self.store = Store(folder / "db")
        self.objects = Objects(folder / "objects")
        self.tasks = BulkTasks(self.objects, authority, lambda bucket, key: f"https://site/{bucket}/{key}")

    def change(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.store.transaction() as tx:
            return work(tx, *arguments, **named)

    def start(self, content: bytes | list[dict[str, str]], template: str = TEMPLATE) -> str:
        data = content if isinstance(content, bytes) else b"".join(json.dumps(one).encode() + b"\n" for one in content)
        self.objects.put("bulk", "in.json", data)
        task_id: str = self.change(self.tasks.start, template, "bulk", "in.json", "arn:role")
        return task_id

    def run(self, content: bytes | list[dict[str, str]], template: str = TEMPLATE) -> Any:
        task_id = self.start(content, template)
        while self.change(self.tasks.step):
            pass
        return self.change(self.tasks.describe, task_id)

    def report(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        links, _ = self.change(self.tasks.reports, task_id, kind)
        rows = []
        for link in links:
            bucket, key = link.removeprefix("https://site/").split("/", 1)
            rows += [json.loads(line) for line in self.objects.get(bucket, key).splitlines()]
        return rows

    def things(self) -> list[str]:
        with self.store.reading() as tx:
            return [row[0] for row in tx.all("SELECT name FROM things ORDER BY name")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(tmp_path: Path, authority: Authority) -> World:
    return World(tmp_path, authority)


def test_every_line_becomes_a_thing(world: World) -> None:
    task = world.run([{"Name": f"pump-{n}"} for n in range(1200)])
    assert (task["status"], task["successCount"], task["failureCount"]) == ("Completed", 1200, 0)
    assert task["percentageProgress"] == 100
    assert len(world.things()) == 1200
    with world.store.reading() as tx:
        assert things.require(tx, "pump-7")["attributes"] == {"site": "north"}


def test_the_report_names_each_line(world: World) -> None:
    task = world.run(b'{"Name":"a"}\n\n{"Name":"b c"}\n{"Name":"d"}')
    results = world.report(task["taskId"], "RESULTS")
    (error,) = world.report(task["taskId"], "ERRORS")
    assert [(row["lineNumber"], row["offset"]) for row in results] == [(1, 0), (4, 29)]
    assert list(results[0]["response"]["resourceArns"]) == ["thing"]
    assert (error["lineNumber"], error["offset"]) == (3, 14)
    assert "thingName" in error["errorMessage"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not valid JSON"),
        (b'{"Name":"x"', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b'{"Name":7}', "parameter 'Name': must be a string"),
        (b'{"Name":null}', "parameter 'Name': must be a string"),
        (b'{"Name":"x","Site":{}}', "parameter 'Site': must be a string"),
        (b'{"Site":"x"}', "Cannot resolve reference value: Name"),
        (b'{"Name":"a b"}', "thingName"),
        (b'{"Name":"x","Site":"two words"}', "attribute 'site'"),
        (b'{"Name":"\xff"}', "not UTF-8"),
        (b'{"Name":"\\ud800"}', "not valid JSON"),
        (b"[" * 10_000, "nesting"),
        (b'{"Name":"' + b"x" * 70_000 + b'"}', "more than 65536 bytes"),
        (b"\x00", "not valid JSON"),
    ],
)
def test_a_bad_line_is_one_error_and_the_others_go_on(world: World, line: bytes, message: str) -> None:
    task = world.run(b'{"Name":"first"}\n' + line + b'\n{"Name":"last"}\n')
    assert (task["status"], task["successCount"], task["failureCount"]) == ("Completed", 2, 1)
    assert world.things() == ["first", "last"]
    (error,) = world.report(task["taskId"], "ERRORS")
    assert error["lineNumber"] == 2
    assert message in error["errorMessage"]


def test_a_line_at_the_limit_is_read(world: World) -> None:
    line = b'{"Name":"x","' + b"p" * (bulk.LINE_BYTES - 22) + b'":"y"}\n'
    assert len(line) == bulk.LINE_BYTES - 2
    assert world.run(line)["successCount"] == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_completes(world: World, content: bytes) -> None:
    task = world.run(content)
    assert (task["status"], task["successCount"]) == ("Completed", 0)


@pytest.mark.parametrize("content", [b'{"Name":"a"}', b'\xef\xbb\xbf{"Name":"a"}\n', b'{"Name":"a"}\r\n'])
def test_files_of_any_editor_are_read(world: World, content: bytes) -> None:
    assert world.run(content)["successCount"] == 1


def test_the_same_file_again_succeeds_and_changes_nothing(world: World) -> None:
    lines = [{"Name": f"pump-{n}"} for n in range(10)]
    world.run(lines)
    task = world.run(lines)
    assert (task["successCount"], task["failureCount"]) == (10, 0)
    with world.store.reading() as tx:
        assert things.require(tx, "pump-1")["version"] == 1


def test_a_thing_that_exists_and_differs_is_an_error(world: World) -> None:
    task = world.run([{"Name": "a"}, {"Name": "a", "Site": "south"}])
    assert (task["successCount"], task["failureCount"]) == (1, 1)
    assert "OverrideSettings.AttributePayload is FAIL" in world.report(task["taskId"], "ERRORS")[0]["errorMessage"]


def with_type_and_group() -> str:
    document = json.loads(TEMPLATE)
    document["Parameters"]["Type"] = {"Type": "String", "Default": "pump"}
    properties = document["Resources"]["thing"]["Properties"]
    properties |= {"ThingTypeName": {"Ref": "Type"}, "ThingGroups": ["all", {"Ref": "Site"}]}
    return json.dumps(document)


def test_types_and_groups_must_exist(world: World) -> None:
    world.change(types.create, "pump")
    world.change(groups.create, "all")
    world.change(groups.create, "north")
    task = world.run(
        [{"Name": "a"}, {"Name": "b", "Site": "south"}, {"Name": "c", "Type": "valve"}], with_type_and_group()
    )
    assert (task["successCount"], task["failureCount"]) == (1, 2)
    assert world.things() == ["a"], "a line that fails leaves nothing behind"
    messages = [row["errorMessage"] for row in world.report(task["taskId"], "ERRORS")]
    assert "Thing group" in messages[0] and "south" in messages[0]
    assert "Thing type" in messages[1] and "valve" in messages[1]
    with world.store.reading() as tx:
        assert groups.groups_of(tx, "a") == ["all", "north"]


def test_certificates_are_signed_in_bulk(world: World) -> None:
    template = json.loads(TEMPLATE)
    template["Parameters"]["Csr"] = {"Type": "String"}
    template["Resources"]["c"] = {
        "Type": "AWS::IoT::Certificate",
        "Properties": {"CertificateSigningRequest": {"Ref": "Csr"}, "Status": "ACTIVE"},
    }
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode()
    task = world.run([{"Name": "a", "Csr": csr}, {"Name": "b", "Csr": "x"}], json.dumps(template))
    assert (task["successCount"], task["failureCount"]) == (1, 1)
    (result,) = world.report(task["taskId"], "RESULTS")
    assert "BEGIN CERTIFICATE" in result["response"]["certificatePem"]
    assert sorted(result["response"]["resourceArns"]) == ["c", "thing"]
    assert world.things() == ["a"]


# Life of a task


def test_one_task_at_a_time(world: World) -> None:
    world.start([{"Name": "a"}])
    with pytest.raises(ApiError, match="only one can run"):
        world.start([{"Name": "b"}])


def test_a_missing_file_is_refused_at_once(world: World) -> None:
    with pytest.raises(ApiError, match="inputFileKey: The specified key does not exist") as caught:
        world.change(world.tasks.start, TEMPLATE, "bulk", "absent", "arn:role")
    assert caught.value.code == "InvalidRequestException"


def test_a_huge_file_is_refused_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "FILE_BYTES", 5)
    with pytest.raises(ApiError, match="at most 5"):
        world.start([{"Name": "a"}])


def test_a_file_that_is_replaced_fails_the_task(world: World) -> None:
    task_id = world.start([{"Name": f"pump-{n}"} for n in range(800)])
    world.change(world.tasks.step)
    world.objects.put("bulk", "in.json", b"other")
    world.change(world.tasks.step)
    task = world.change(world.tasks.describe, task_id)
    assert (task["status"], task["successCount"]) == ("Failed", 500)
    assert "was replaced" in task["message"]
    assert len(world.report(task_id, "RESULTS")) == 500


def test_a_stopped_task_keeps_what_it_did(world: World) -> None:
    task_id = world.start([{"Name": f"pump-{n}"} for n in range(800)])
    world.change(world.tasks.step)
    world.change(world.tasks.stop, task_id)
    assert world.change(world.tasks.describe, task_id)["status"] == "Cancelling"
    while world.change(world.tasks.step):
        pass
    assert world.change(world.tasks.describe, task_id)["status"] == "Cancelled"
    assert len(world.things()) == len(world.report(task_id, "RESULTS")) == 500
    with pytest.raises(ApiError, match="already Cancelled"):
        world.change(world.tasks.stop, task_id)


def test_progress_is_shown(world: World) -> None:
    task_id = world.start([{"Name": f"pump-{n:04}"} for n in range(1000)])
    assert world.change(world.tasks.describe, task_id)["percentageProgress"] == 0
    world.change(world.tasks.step)
    assert world.change(world.tasks.describe, task_id)["percentageProgress"] == 50


def test_a_step_does_not_hold_the_process_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "STEP_S", -1)
    task_id = world.start([{"Name": "a"}, {"Name": "b"}])
    world.change(world.tasks.step)
    assert world.change(world.tasks.describe, task_id)["successCount"] == 1


def test_reports_of_large_files_come_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PART_LINES", 100)
    task = world.run([{"Name": f"pump-{n}"} for n in range(1050)])
    links, token = world.change(world.tasks.reports, task["taskId"], "RESULTS", None, 4)
    rest, end = world.change(world.tasks.reports, task["taskId"], "RESULTS", token, 250)
    assert (len(links), len(rest), end) == (4, 7, None)
    assert [row["lineNumber"] for row in world.report(task["taskId"], "RESULTS")] == list(range(1, 1051))
    assert world.change(world.tasks.reports, task["taskId"], "ERRORS") == ([], None)


def test_tasks_are_listed_newest_first(world: World) -> None:
    made = [world.run([{"Name": "a"}])["taskId"] for _ in range(3)]
    first, token = world.change(world.tasks.list, None, None, 2)
    second, end = world.change(world.tasks.list, None, token, 2)
    assert (first + second, end) == (made[::-1], None)
    assert world.change(world.tasks.list, "InProgress") == ([], None)


def test_an_unknown_task_is_not_found(world: World) -> None:
    with pytest.raises(ApiError) as caught:
        world.change(world.tasks.describe, "nothing")
    assert caught.value.code == "ResourceNotFoundException"


# Crashes

_WORKER = """
import sys
from pathlib import Path
from edgefleet.artifacts.objects import Objects
from edgefleet.pki import Authority
from edgefleet.provisioning import bulk
from edgefleet.store import Store
bulk.STEP_LINES, bulk.PART_LINES = 20, 50
folder = Path(sys.argv[1])
tasks = bulk.BulkTasks(Objects(folder / "objects"), Authority.load_or_create(folder / "ca"), lambda b, k: k)
store = Store(folder / "db")
more = True
while more:
    with store.transaction() as tx:
        more = tasks.step(tx)
    print("step", flush=True)
"""


def test_a_task_survives_kill_9(world: World, tmp_path: Path) -> None:
    lines = [{"Name": f"pump-{n:04}"} if n % 10 else {"Name": "bad name"} for n in range(2000)]
    task_id = world.start(lines)
    kills = 0
    while world.change(world.tasks.describe, task_id)["status"] == "InProgress":
        worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, env=dict(os.environ)
        )
        assert worker.stdout is not None
        for _ in range(17):  # so many steps are surely committed; the kill hits a later one anywhere
            worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        kills += 1
        assert kills < 20
    task = world.change(world.tasks.describe, task_id)
    assert (task["status"], task["successCount"], task["failureCount"]) == ("Completed", 1800, 200)
    assert len(world.things()) == 1800
    reported = world.report(task_id, "RESULTS") + world.report(task_id, "ERRORS")
    assert sorted(row["lineNumber"] for row in reported) == list(range(1, 2001))
    assert kills > 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b'{"Name":"a"}', b'{"Name":"b"}\r', b"{}", b"[1]"]), max_size=8)
)
def test_any_file_comes_to_an_end_and_accounts_for_every_line(world: World, pieces: list[bytes]) -> None:
    content = b"\n".join(pieces)
    expected = [n for n, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    task = world.run(content)
    reported = world.report(task["taskId"], "RESULTS") + world.report(task["taskId"], "ERRORS")
    assert task["status"] == "Completed"
    assert sorted(row["lineNumber"] for row in reported) == expected

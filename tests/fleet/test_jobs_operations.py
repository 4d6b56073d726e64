# SPDX-License-Identifier: Apache-2.0
"""The control plane of jobs, and their device plane over HTTP (aws-iot-protocol.md section 4, Appendix F 9-12, 24)."""

from __future__ import annotations

import json

import pytest

from edgefleet import names, paging
from edgefleet.artifacts.objects import Objects
from edgefleet.errors import ApiError
from edgefleet.jobs import lifecycle
from edgefleet.jobs.operations import JobOperations, JobsDataOperations
from edgefleet.registry import groups
from tests.fleet.jobs_world import DOCUMENT, World

ABORT = {
    "criteriaList": [
        {"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 20, "minNumberOfExecutedThings": 5}
    ]
}


@pytest.fixture
def objects(tmp_path):
    return Objects(tmp_path / "objects")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, 10)


@pytest.fixture
def call(world, objects):
    """call("create_job", jobId=…): one operation of `iot`, or of `iot-jobs-data` with `data=True`."""

    def run(operation, data=False, **members):
        target = JobsDataOperations() if data else JobOperations(objects)
        return world.do(lambda tx, context: getattr(target, operation)(tx, **members))

    return run


def arn(thing):
    return names.arn(f"thing/{thing}")


def test_a_job_reaches_the_things_of_groups_and_child_groups_once(world, call):
    with world.store.transaction() as tx:
        groups.create(tx, "plant")
        groups.create(tx, "hall", parent="plant")
        groups.add_thing(tx, "plant", "t1")
        groups.add_thing(tx, "hall", "t2")
    answer = call("create_job", jobId="j", targets=[names.arn("thinggroup/plant"), arn("t2"), arn("t3")],
                  document=DOCUMENT, description="why")  # fmt: skip
    assert answer == {"jobArn": names.arn("job/j"), "jobId": "j", "description": "why"}
    listed = call("list_job_executions_for_job", jobId="j")["executionSummaries"]
    assert sorted(one["thingArn"] for one in listed) == [arn("t1"), arn("t2"), arn("t3")]
    assert all(one["jobExecutionSummary"]["status"] == "QUEUED" for one in listed)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"targets": [arn("nobody")]}, "ResourceNotFoundException"),
        ({"targets": [names.arn("thinggroup/none")]}, "ResourceNotFoundException"),
        ({"targets": []}, "InvalidRequestException"),
        ({"targets": ["t1"]}, "InvalidRequestException"),
        ({"document": "{"}, "InvalidRequestException"),
        ({"document": '{"a":"\ud800"}'}, "InvalidRequestException"),
        ({"document": '{"a":NaN}'}, "InvalidRequestException"),
        ({"document": "[" * 32000}, "InvalidRequestException"),
        ({"document": '"' + "x" * 32768 + '"'}, "LimitExceededException"),
        ({"document": None}, "InvalidRequestException"),
        ({"documentSource": "s3://bucket/key"}, "InvalidRequestException"),
        ({"jobId": "a b"}, "InvalidRequestException"),
        ({"description": "x" * 2029}, "InvalidRequestException"),
        ({"timeoutConfig": {"inProgressTimeoutInMinutes": 10081}}, "InvalidRequestException"),
        ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 0}}, "InvalidRequestException"),
        ({"abortConfig": {"criteriaList": ABORT["criteriaList"] * 2}}, "InvalidRequestException"),
        ({"jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "ALL", "numberOfRetries": 11}]}},
         "InvalidRequestException"),
        ({"targetSelection": "CONTINUOUS"}, "NotImplementedException"),
        ({"document": '{"u":"${aws:iot:s3-presigned-url:https://s3.x.amazonaws.com/b/k}"}'},
         "InvalidRequestException"),
    ],
)  # fmt: skip
def test_a_bad_job_is_refused_whole(world, call, members, code):
    with pytest.raises(ApiError) as error:
        call("create_job", **{"jobId": "j", "targets": [arn("t1")], "document": DOCUMENT, **members})
    assert error.value.code == code
    assert world.value("SELECT count(*) FROM jobs") == 0


def test_a_job_id_is_taken_until_its_job_is_deleted(world, call):
    call("create_job", jobId="j", targets=[arn("t1")], document=DOCUMENT)
    with pytest.raises(ApiError) as error:
        call("create_job", jobId="j", targets=[arn("t1")], document=DOCUMENT)
    assert error.value.code == "ResourceAlreadyExistsException"
    call("delete_job", jobId="j", force=True)
    call("create_job", jobId="j", targets=[arn("t1")], document=DOCUMENT)


def test_a_document_is_read_from_the_object_store_at_creation(world, call, objects):
    objects.put("docs-x", "a/b.json", DOCUMENT.encode())
    call("create_job", jobId="j", targets=[arn("t1")], documentSource="s3://docs-x/a/b.json")
    call(
        "create_job", jobId="k", targets=[arn("t1")], documentSource="https://s3.local-1.amazonaws.com/docs-x/a/b.json"
    )
    assert call("get_job_document", jobId="j") == {"document": DOCUMENT}
    assert call("describe_job", jobId="j")["documentSource"] == "s3://docs-x/a/b.json"
    with pytest.raises(ApiError):
        call("create_job", jobId="l", targets=[arn("t1")], documentSource="s3://docs-x/none")


def test_a_presigned_url_is_made_for_the_device_and_not_for_the_operator(world, objects):
    document = '{"u":"${aws:iot:s3-presigned-url:https://s3.x.amazonaws.com/bucket/k/1}"}'
    config = {"roleArn": "arn:aws:iam::000000000000:role/x", "expiresInSec": 60}

    def presign(bucket, key, seconds):
        return f"https://{bucket}/{key}?{seconds}"

    operations, data = JobOperations(objects, presign), JobsDataOperations(presign)
    with world.store.transaction() as tx:
        operations.create_job(tx, jobId="j", targets=[arn("t1")], document=document, presignedUrlConfig=config)
        shown = data.describe_job_execution(tx, jobId="j", thingName="t1")
        assert operations.get_job_document(tx, jobId="j") == {"document": document}
    assert json.loads(shown["execution"]["jobDocument"]) == {"u": "https://bucket/k/1?60"}


def test_describe_job_counts_executions_by_status(world, call):
    call("create_job", jobId="j", targets=[arn("t1"), arn("t2"), arn("t3")], document=DOCUMENT, abortConfig=ABORT)
    world.ask("j/update", {"status": "SUCCEEDED"}, "t1")
    world.ask("j/update", {"status": "IN_PROGRESS"}, "t2")
    job = call("describe_job", jobId="j")["job"]
    details = {name: count for name, count in job["jobProcessDetails"].items() if count}
    assert details == {"numberOfSucceededThings": 1, "numberOfInProgressThings": 1, "numberOfQueuedThings": 1}
    assert (job["status"], job["timeoutConfig"], job["abortConfig"]) == ("IN_PROGRESS", {}, ABORT)
    assert job["isConcurrent"] is False


def test_canceling_leaves_running_executions_able_to_report(world, call):
    call("create_job", jobId="j", targets=[arn("t1"), arn("t2")], document=DOCUMENT)
    world.ask("start-next", thing="t1")
    call("cancel_job", jobId="j", reasonCode="NOT_NEEDED", comment="enough")
    assert world.events() == ["jobExecution/j/canceled", "job/j/canceled"]
    assert [kind for kind, _ in world.notified("t2")] == ["notify", "notify-next"]
    assert world.ask("j/update", {"status": "SUCCEEDED"}, "t1")[0] == "accepted"
    job = call("describe_job", jobId="j")["job"]
    assert (job["status"], job["reasonCode"], job["forceCanceled"]) == ("CANCELED", "NOT_NEEDED", False)
    with pytest.raises(ApiError) as error:
        call("cancel_job", jobId="j")
    assert error.value.code == "InvalidRequestException"


def test_canceling_with_force_ends_running_executions(world, call):
    call("create_job", jobId="j", targets=[arn("t1")], document=DOCUMENT)
    world.ask("start-next")
    call("cancel_job", jobId="j", force=True)
    execution = call("describe_job_execution", jobId="j", thingName="t1")["execution"]
    assert (execution["status"], execution["forceCanceled"]) == ("CANCELED", True)


def test_too_many_failures_abort_the_job_in_the_same_transaction(world):
    world.create("j", abort_config=ABORT)
    world.ask("start-next", thing="t10")
    for n in range(1, 5):
        world.ask("j/update", {"status": "SUCCEEDED"}, f"t{n}")
    assert world.status("j") == "IN_PROGRESS"
    world.ask("j/update", {"status": "FAILED"}, "t5")
    assert world.status("j") == "CANCELED"
    assert world.events()[0] == "jobExecution/j/failed"
    assert world.events()[-1] == "job/j/canceled"
    assert world.value("SELECT reason_code FROM jobs") == "ABORT_CANCEL"
    assert world.value("SELECT count(*) FROM job_executions WHERE status = 'CANCELED'") == 4
    assert world.ask("j/update", {"status": "SUCCEEDED"}, "t10")[0] == "accepted"


def test_a_failed_execution_is_retried_and_the_job_waits_for_it(world):
    retry = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]}
    world.create("j", ["t1"], retry_config=retry)
    world.ask("j/update", {"status": "FAILED"})
    assert [kind for kind, _ in world.notified()] == ["notify", "notify-next"]
    execution = world.ask("$next/get")[1]["execution"]
    assert (execution["executionNumber"], execution["versionNumber"], execution["status"]) == (2, 1, "QUEUED")
    assert world.status("j") == "IN_PROGRESS"
    assert world.ask("j/update", {"status": "FAILED", "executionNumber": 1})[1]["code"] == "InvalidStateTransition"
    world.ask("j/update", {"status": "FAILED"})
    assert world.status("j") == "COMPLETED"


def test_a_rollout_releases_its_rate_each_minute(world):
    world.create("j", rollout_config={"maximumPerMinute": 4})
    count = "SELECT count(*) FROM job_executions"
    assert world.value(count) == 4
    world.tick(59)
    assert world.value(count) == 4
    world.tick(1)
    assert world.value(count) == 8
    assert [len(world.notified(name)) for name in ("t5", "t9")] == [2, 0]
    for name in world.things[:8]:
        world.ask("j/update", {"status": "SUCCEEDED"}, name)
    assert world.status("j") == "IN_PROGRESS"
    world.tick(60)
    for name in world.things[8:]:
        world.ask("j/update", {"status": "SUCCEEDED"}, name)
    assert world.status("j") == "COMPLETED"


def test_a_canceled_rollout_releases_nothing_more(world):
    world.create("j", rollout_config={"maximumPerMinute": 4})
    world.cancel("j")
    world.tick(60)
    assert world.sent == []


def test_a_job_without_things_is_completed_at_once(world, call):
    with world.store.transaction() as tx:
        groups.create(tx, "empty")
    call("create_job", jobId="j", targets=[names.arn("thinggroup/empty")], document=DOCUMENT)
    assert world.status("j") == "COMPLETED"


def test_canceling_an_execution_checks_version_and_state(world, call):
    world.create("j", ["t1", "t2"])
    world.ask("start-next")
    for members, code in (({"expectedVersion": 1}, "VersionConflictException"),
                          ({}, "InvalidStateTransitionException")):  # fmt: skip
        with pytest.raises(ApiError) as error:
            call("cancel_job_execution", jobId="j", thingName="t1", **members)
        assert (error.value.code, error.value.status) == (code, 409)
    call("cancel_job_execution", jobId="j", thingName="t1", force=True, statusDetails={"why": "tired"})
    assert world.ask("j/get")[1]["code"] == "TerminalStateReached"
    assert [kind for kind, _ in world.notified("t1")] == []
    with pytest.raises(ApiError):
        call("cancel_job_execution", jobId="j", thingName="t1", force=True)


def test_deleting_an_unfinished_job_needs_force_and_tells_its_things(world, call):
    world.create("j", ["t1"])
    with pytest.raises(ApiError) as error:
        call("delete_job", jobId="j")
    assert error.value.code == "InvalidStateTransitionException"
    call("delete_job", jobId="j", force=True)
    assert [(kind, message.get("jobs")) for kind, message in world.notified()] == [
        ("notify", {}),
        ("notify-next", None),
    ]
    assert world.value("SELECT count(*) FROM job_executions") == 0
    with pytest.raises(ApiError):
        call("describe_job", jobId="j")


def test_deleting_the_last_open_execution_completes_the_job(world, call):
    world.create("j", ["t1", "t2"])
    world.ask("j/update", {"status": "SUCCEEDED"}, "t1")
    call("delete_job_execution", jobId="j", thingName="t2", executionNumber=1)
    assert world.status("j") == "COMPLETED"


def test_a_deleted_thing_leaves_removed_executions_and_no_messages(world):
    world.create("j", ["t1", "t2"])
    world.ask("j/update", {"status": "SUCCEEDED"}, "t2")
    world.do(lambda tx, context: lifecycle.forget_thing(tx, context, "t1"))
    assert world.notified() == []
    assert world.value("SELECT status FROM job_executions WHERE thing_name = 't1'") == "REMOVED"
    assert world.status("j") == "COMPLETED"


def pages(call, operation, key, **members):
    """All entries of a list, and what the `between` callback does is done after each page."""
    between = members.pop("between", lambda: None)
    found, token = [], None
    while True:
        page = call(operation, nextToken=token, **members)
        found.extend(page[key])
        token = page.get("nextToken")
        if token is None:
            return found
        between()


def test_pages_of_jobs_survive_deletions_in_between(world, call):
    for n in range(9):
        world.create(f"j{n}", ["t1"])
    doomed = iter(["j8", "j7", "j0"])

    def between():
        name = next(doomed, None)
        if name:
            world.delete(name)

    listed = [job["jobId"] for job in pages(call, "list_jobs", "jobs", maxResults=2, between=between)]
    assert listed == ["j8", "j7", "j6", "j5", "j4", "j3", "j2", "j1"]


def test_jobs_are_filtered_by_status_and_group(world, call):
    with world.store.transaction() as tx:
        groups.create(tx, "g")
    world.create("a", ["t1"])
    call("create_job", jobId="b", targets=[names.arn("thinggroup/g")], document=DOCUMENT)
    assert [job["jobId"] for job in call("list_jobs", thingGroupName="g")["jobs"]] == ["b"]
    assert [job["jobId"] for job in call("list_jobs", status="IN_PROGRESS")["jobs"]] == ["a"]


def test_no_execution_is_missed_while_others_change_between_pages(world, call):
    world.create("j")
    names_left = iter(world.things)

    def between():
        world.ask("j/update", {"status": "SUCCEEDED"}, next(names_left))

    listed = pages(call, "list_job_executions_for_job", "executionSummaries", jobId="j", maxResults=2, between=between)
    assert {one["thingArn"] for one in listed} == {arn(name) for name in world.things}


@pytest.mark.parametrize("size", [1, 3, 5, 10])
def test_undisturbed_pages_show_each_execution_once_latest_first(world, call, size):
    world.create("j")
    world.ask("j/update", {"status": "SUCCEEDED"}, "t4")
    listed = pages(call, "list_job_executions_for_job", "executionSummaries", jobId="j", maxResults=size)
    assert len(listed) == 10
    assert listed[0]["thingArn"] == arn("t4")
    assert len({one["thingArn"] for one in listed}) == 10


def test_executions_of_a_thing_are_listed_newest_first(world, call):
    for n in range(3):
        world.create(f"j{n}", ["t1"])
    world.ask("j1/update", {"status": "FAILED"})
    listed = pages(call, "list_job_executions_for_thing", "executionSummaries", thingName="t1", maxResults=2)
    assert [one["jobId"] for one in listed] == ["j2", "j1", "j0"]
    (failed,) = call("list_job_executions_for_thing", thingName="t1", status="FAILED")["executionSummaries"]
    assert failed["jobExecutionSummary"]["status"] == "FAILED"


@pytest.mark.parametrize(
    "token", ["", "x", "ä", "W10", "W3RydWVd", "A" * 3000, paging.encode(1 << 70), paging.encode("\ud800")]
)
def test_a_foreign_token_is_refused(call, token):
    with pytest.raises(ApiError) as error:
        call("list_jobs", nextToken=token)
    assert error.value.code == "InvalidRequestException"


def test_execution_details_are_nested_on_the_control_plane(world, call):
    world.create("j", ["t1"])
    world.ask("start-next", {"statusDetails": {"a": "1"}})
    execution = call("describe_job_execution", jobId="j", thingName="t1")["execution"]
    assert execution["statusDetails"] == {"detailsMap": {"a": "1"}}
    assert execution["thingArn"] == arn("t1")


def test_the_data_plane_over_http_has_thing_name_and_document_as_text(world, call):
    world.create("j", ["t1"])
    assert call("get_pending_job_executions", data=True, thingName="t1")["queuedJobs"][0]["jobId"] == "j"
    execution = call("start_next_pending_job_execution", data=True, thingName="t1")["execution"]
    assert (execution["thingName"], execution["jobDocument"]) == ("t1", '{"operation":"reboot"}')
    call("update_job_execution", data=True, jobId="j", thingName="t1", status="SUCCEEDED")
    assert [kind for kind, _ in world.notified()] == ["notify", "notify-next"]
    for operation, members, code, status in (
        ("describe_job_execution", {}, "TerminalStateException", 410),
        ("update_job_execution", {"status": "FAILED"}, "InvalidStateTransitionException", 409),
        ("update_job_execution", {"status": "FAILED", "expectedVersion": 9}, "InvalidRequestException", 400),
        ("update_job_execution", {"status": "FAILED", "executionNumber": 9}, "ResourceNotFoundException", 404),
    ):
        with pytest.raises(ApiError) as error:
            call(operation, data=True, jobId="j", thingName="t1", **members)
        assert (error.value.code, error.value.status) == (code, status)


def test_the_pending_queue_of_a_thing_is_found_by_index(world):
    sql = "SELECT * FROM job_executions WHERE thing_name = ? AND status IN ('QUEUED', 'IN_PROGRESS')"
    with world.store.reading() as tx:
        assert "job_executions_pending" in tx.all(f"EXPLAIN QUERY PLAN {sql}", ("x1",))[0]["detail"]


def test_one_tick_releases_a_bounded_batch(tmp_path):
    world = World(tmp_path, 250)
    with world.store.transaction() as tx:
        groups.create(tx, "g")
        for name in world.things:
            groups.add_thing(tx, "g", name)
    world.create("j", targets=[names.arn("thinggroup/g")])
    counted = [world.value("SELECT count(*) FROM job_executions")]
    for _ in range(2):
        world.tick(1)
        counted.append(world.value("SELECT count(*) FROM job_executions"))
    assert counted == [100, 200, 250]

# SPDX-License-Identifier: Apache-2.0
"""Rules that need several domains of a running site at once."""

from __future__ import annotations

import json

from examples.demo.judge import Judge, wait_for


def test_deleting_a_thing_ends_its_pending_executions_and_lets_the_job_complete(judge: Judge) -> None:
    arn = judge.iot.create_thing(thingName="short-lived")["thingArn"]
    judge.iot.create_job(jobId="for-nobody", targets=[arn], document=json.dumps({"operation": "reboot"}))
    assert judge.executions("for-nobody") == {"short-lived": "QUEUED"}
    judge.iot.delete_thing(thingName="short-lived")
    assert judge.executions("for-nobody") == {"short-lived": "REMOVED"}
    wait_for(
        lambda: judge.iot.describe_job(jobId="for-nobody")["job"]["status"] == "COMPLETED" or None,
        lambda: str(judge.iot.describe_job(jobId="for-nobody")["job"]),
        10,
    )

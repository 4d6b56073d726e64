# SPDX-License-Identifier: Apache-2.0
"""What the store and the devices say: every verdict of the demo is read back through the API, never remembered."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import boto3

from examples.demo.processes import DemoError, FleetManager

T = TypeVar("T")


def wait_for(probe: Callable[[], T | None], what: Callable[[], str], seconds: float) -> T:
    """Poll until `probe` returns something; DemoError with `what()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"after {seconds:.0f} s: {what()}")
        time.sleep(0.25)


class Judge:
    """boto3 against the site, as any operator's script would use it."""

    def __init__(self, fleet: FleetManager) -> None:
        os.environ.update({k: v for k, v in fleet.environment.items() if k.startswith("AWS_")})
        session = boto3.Session(profile_name="edgefleet")
        self.iot: Any = session.client("iot")
        self.data: Any = session.client("iot-data")
        self.s3: Any = session.client("s3")

    def search(self, query: str) -> list[str]:
        """Names of the things that match, all pages."""
        names: list[str] = []
        arguments: dict[str, Any] = {"queryString": query, "maxResults": 250}
        while True:
            page = self.iot.search_index(**arguments)
            names += [thing["thingName"] for thing in page["things"]]
            if not page.get("nextToken"):
                return sorted(names)
            arguments["nextToken"] = page["nextToken"]

    def reported(self, thing: str) -> dict[str, Any]:
        """The reported state of the classic shadow, {} if there is none."""
        try:
            document = json.loads(self.data.get_thing_shadow(thingName=thing)["payload"].read())
        except self.data.exceptions.ResourceNotFoundException:
            return {}
        reported: dict[str, Any] = document["state"].get("reported", {})
        return reported

    def certificates(self, thing: str) -> list[str]:
        principals: list[str] = self.iot.list_thing_principals(thingName=thing)["principals"]
        return principals

    def executions(self, job: str) -> dict[str, str]:
        """Thing name → status."""
        pages = self.iot.get_paginator("list_job_executions_for_job").paginate(jobId=job)
        return {
            summary["thingArn"].rsplit("/", 1)[1]: summary["jobExecutionSummary"]["status"]
            for page in pages
            for summary in page["executionSummaries"]
        }

    def details(self, job: str, thing: str) -> dict[str, str]:
        """statusDetails of an execution."""
        execution = self.iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
        details: dict[str, str] = execution.get("statusDetails", {}).get("detailsMap", {})
        return details

    def finished(self, job: str, things: list[str], seconds: float) -> dict[str, int]:
        """Wait until every execution of the job is terminal. Returns counts by status."""

        def probe() -> dict[str, str] | None:
            now = self.executions(job)
            over = len(now) == len(things) and not {"QUEUED", "IN_PROGRESS"} & set(now.values())
            return now if over else None

        statuses = wait_for(probe, lambda: f"job {job} is not over: {self.executions(job)}", seconds)
        return dict(Counter(statuses.values()))


def expect(condition: bool, what: str) -> None:
    """A step must have done what it should."""
    if not condition:
        raise DemoError(what)

# SPDX-License-Identifier: Apache-2.0
"""AWS IoT reserved topics: build and match. The only place where they are spelled.

Source: aws-iot-protocol.md, Appendix A; sections 3.1, 6.1, 9.1, 10.1 and 2.5 (Basic Ingest).
Pure functions, used by both halves.
"""

THINGS = "$aws/things/"
CREATE_KEYS = "$aws/certificates/create/json"
CREATE_FROM_CSR = "$aws/certificates/create-from-csr/json"
ACCEPTED = "/accepted"
REJECTED = "/rejected"
# What a runner of jobs listens to; `+/get/+` covers `$next/get`. The notification is last: no reply may be missed.
JOB_FILTERS = ("start-next/+", "+/get/+", "+/update/+", "notify-next")
# Basic Ingest rule that files a device's uploads (diagnostics bundles): on AWS an IoT rule to S3, here built in.
UPLOAD_RULE = "edgeagent_upload"
RULES = "$aws/rules/"
# Not reserved: where a device's telemetry goes unless its configuration says otherwise.
TELEMETRY = "dt/edgeagent/{thing}/telemetry"


def jobs(thing: str, rest: str) -> str:
    """`rest`: `get`, `start-next`, `notify`, `notify-next`, `{jobId}/get`, `{jobId}/update`."""
    return THINGS + thing + "/jobs/" + rest


def shadow(thing: str, rest: str, name: "str | None" = None) -> str:
    """`rest`: `get`, `update`, `delete` (+ `/accepted` …), `update/delta`, `update/documents`."""
    return THINGS + thing + ("/shadow/name/%s/" % name if name else "/shadow/") + rest


def provision(name: str) -> str:
    """`name`: of the provisioning template."""
    return "$aws/provisioning-templates/%s/provision/json" % name


def stream(thing: str, name: str, rest: str) -> str:
    """`rest`: `describe/json`, `description/json`, `get/json`, `data/json`, `rejected/json`."""
    return THINGS + thing + "/streams/" + name + "/" + rest


def upload(thing: str, name: str, part: int, parts: int) -> str:
    """One part of an upload, by Basic Ingest. Payload: the raw bytes of the part; `part` counts from 0."""
    return RULES + "%s/%s/%s/%d/%d" % (UPLOAD_RULE, thing, name, part, parts)


def defender(thing: str) -> str:
    """Device Defender metrics in JSON (section 11)."""
    return THINGS + thing + "/defender/metrics/json"


def matches(name: str, topic: str) -> bool:
    """Does the topic filter `name` match: with AWS's rule that `a/#` does not match `a` and none that has no `$` first
    reaches topics that have.

    Source: aws-iot-protocol.md section 2.4; MQTT 3.1.1 section 4.7.
    """
    if topic[:1] == "$" != name[:1]:
        return False
    levels = topic.split("/")
    parts = name.split("/")
    if parts[-1] == "#" and len(levels) >= len(parts):
        parts.pop()
        levels = levels[: len(parts)]
    if len(parts) != len(levels):
        return False
    for part in parts:
        level = levels.pop(0)
        if part != "+" and part != level:
            return False
    return True

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
# Basic Ingest rule that files a device's uploads (diagnostics bundles): on AWS an IoT rule to S3, here built in.
UPLOAD_RULE = "edgeagent_upload"


def jobs(thing: str, rest: str) -> str:
    """`rest`: `get`, `start-next`, `notify`, `notify-next`, `{jobId}/get`, `{jobId}/update`."""
    return "%s%s/jobs/%s" % (THINGS, thing, rest)


def shadow(thing: str, operation: str, name: "str | None" = None) -> str:
    """`operation`: `get`, `update`, `delete` (+ `/accepted` …), `update/delta`, `update/documents`."""
    if name is None:
        return "%s%s/shadow/%s" % (THINGS, thing, operation)
    return "%s%s/shadow/name/%s/%s" % (THINGS, thing, name, operation)


def provision(template: str) -> str:
    return "$aws/provisioning-templates/%s/provision/json" % template


def stream(thing: str, stream_id: str, verb: str) -> str:
    """`verb`: `describe/json`, `description/json`, `get/json`, `data/json`, `rejected/json`."""
    return "%s%s/streams/%s/%s" % (THINGS, thing, stream_id, verb)


def upload(thing: str, bundle: str, part: int, parts: int) -> str:
    """One part of an upload, by Basic Ingest. Payload: the raw bytes of the part; `part` counts from 0."""
    return "$aws/rules/%s/%s/%s/%d/%d" % (UPLOAD_RULE, thing, bundle, part, parts)


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT topic matching with AWS's rule that `a/#` does not match `a` and wildcards do not reach `$` topics.

    Source: aws-iot-protocol.md section 2.4; MQTT 3.1.1 section 4.7.
    """
    if topic_filter == topic:
        return True
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):
        return False
    filters = topic_filter.split("/")
    levels = topic.split("/")
    for n, part in enumerate(filters):
        if part == "#":
            return len(levels) > n
        if n >= len(levels) or (part != "+" and part != levels[n]):
            return False
    return len(filters) == len(levels)

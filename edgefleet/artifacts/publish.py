# SPDX-License-Identifier: Apache-2.0
"""An artifact to where devices get it: three objects in S3 and a stream over them. Works on AWS and on edgefleet."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from edgefleet.artifacts.build import Artifact, sha256
from edgefleet.artifacts.delta import Delta

BUCKET = "edgeagent-artifacts"
ROLE = "arn:aws:iam::000000000000:role/edgeagent-streams"
PARTS = ("envelope", "blocks", "payload")


def stream_id(artifact: Artifact, deltas: Sequence[Delta] = ()) -> str:
    """`name-version-digest` (of envelope and patches) in the letters a stream id may have: equals have one stream."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "-", f"{artifact.info.name}-{artifact.info.version}")[:100]
    return f"{name}-{sha256(b''.join([artifact.envelope, *[one.patch for one in deltas]]))[:12]}"


def publish(
    artifact: Artifact,
    s3: Any,
    iot: Any,
    bucket: str = BUCKET,
    role: str = ROLE,
    https: bool = False,
    deltas: Sequence[Delta] = (),
) -> dict[str, Any]:
    """Upload and create the stream, unless it exists. Returns the job document that installs the artifact.

    s3, iot: boto3 clients. role: the role by which AWS reads the bucket; edgefleet ignores it. https: devices fetch by
    presigned URLs, which the Jobs service puts in for each of them, instead of from the stream. deltas: become
    further files of it. Publishing again after a failure half-way is safe: objects never change, since the digest is in
    their names.
    """
    identity = stream_id(artifact, deltas)
    document = job_document(artifact, deltas)
    names = [*PARTS, *[f"delta-{one.old.digest[:12]}" for one in deltas]]
    if https:
        # Path style: buckets may have dots in their names, which no certificate covers.
        region = s3.meta.region_name
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        base = f"https://s3.{region}.{suffix}/{bucket}/{identity}"
        urls = {part: f"${{aws:iot:s3-presigned-url:{base}/{part}}}" for part in names}
        document["urls"] = {part: urls[part] for part in PARTS}
        for entry in document.get("deltas", ()):
            entry["url"] = urls[names[entry.pop("file")]]
    with contextlib.suppress(iot.exceptions.ResourceNotFoundException):
        iot.describe_stream(streamId=identity)
        return document  # devices may be reading it: an object put again is another object to them
    parts = (artifact.envelope, artifact.blocks, artifact.payload, *[one.patch for one in deltas])
    files = []
    for number, (part, data) in enumerate(zip(names, parts, strict=True)):
        key = f"{identity}/{part}"
        s3.put_object(Bucket=bucket, Key=key, Body=data)
        files.append({"fileId": number, "s3Location": {"bucket": bucket, "key": key}})
    with contextlib.suppress(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_stream(streamId=identity, files=files, roleArn=role)
    return document


def job_document(artifact: Artifact, deltas: Sequence[Delta] = ()) -> dict[str, Any]:
    """The document of an `ota` job."""
    document: dict[str, Any] = {
        "operation": "ota",
        "stream": stream_id(artifact, deltas),
        "artifact": {
            "envelope": len(artifact.envelope),
            "blocks": len(artifact.blocks),
            "payload": len(artifact.payload),
        },
    }
    if deltas:
        document["deltas"] = [
            {"from": one.old.digest, "bytes": len(one.patch), "file": number}
            for number, one in enumerate(deltas, len(PARTS))
        ]
    return document

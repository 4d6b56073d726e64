# SPDX-License-Identifier: Apache-2.0
"""An artifact to where devices get it: three objects in S3 and a stream over them. Works on AWS and on edgefleet."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from edgefleet.artifacts.build import Artifact, sha256

BUCKET = "edgeagent-artifacts"
ROLE = "arn:aws:iam::000000000000:role/edgeagent-streams"
PARTS = ("envelope", "blocks", "payload")


def stream_id(artifact: Artifact) -> str:
    """`name-version-digest` (of the envelope) in the letters a stream id may have: what is equal has one stream."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "-", f"{artifact.info.name}-{artifact.info.version}")[:100]
    return f"{name}-{sha256(artifact.envelope)[:12]}"


def publish(
    artifact: Artifact, s3: Any, iot: Any, bucket: str = BUCKET, role: str = ROLE, https: bool = False
) -> dict[str, Any]:
    """Upload and create the stream, unless it exists. Returns the job document that installs the artifact.

    s3, iot: boto3 clients. role: the role by which AWS reads the bucket; edgefleet ignores it. https: devices fetch by
    presigned URLs, which the Jobs service puts in for each of them, instead of from the stream. Publishing again after
    a failure half-way is safe: objects never change, since the digest is in their names.
    """
    identity = stream_id(artifact)
    document = job_document(artifact)
    if https:
        # Path style: buckets may have dots in their names, which no certificate covers.
        base = f"https://s3.{s3.meta.region_name}.amazonaws.com/{bucket}/{identity}"
        document["urls"] = {part: f"${{aws:iot:s3-presigned-url:{base}/{part}}}" for part in PARTS}
    with contextlib.suppress(iot.exceptions.ResourceNotFoundException):
        iot.describe_stream(streamId=identity)
        return document  # devices may be reading it: an object put again is another object to them
    parts = (artifact.envelope, artifact.blocks, artifact.payload)
    files = []
    for number, (part, data) in enumerate(zip(PARTS, parts, strict=True)):
        key = f"{identity}/{part}"
        s3.put_object(Bucket=bucket, Key=key, Body=data)
        files.append({"fileId": number, "s3Location": {"bucket": bucket, "key": key}})
    with contextlib.suppress(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_stream(streamId=identity, files=files, roleArn=role)
    return document


def job_document(artifact: Artifact) -> dict[str, Any]:
    """The document of an `ota` job."""
    return {
        "operation": "ota",
        "stream": stream_id(artifact),
        "artifact": {
            "envelope": len(artifact.envelope),
            "blocks": len(artifact.blocks),
            "payload": len(artifact.payload),
        },
    }

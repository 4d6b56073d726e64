# SPDX-License-Identifier: Apache-2.0
"""Building and signing update artifacts: reproducible, refused when wrong, and understood by the device's own code."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.errors import UpdateError
from edgeagent.ota import verify
from edgeagent.ota.manifest import Manifest, parse_envelope, parse_manifest
from edgeagent.ota.writer import Writer
from edgefleet.artifacts import publish, sign
from edgefleet.artifacts import verify as second
from edgefleet.artifacts.build import Artifact, build, hash_list
from edgefleet.errors import InputError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "lib").mkdir(parents=True)
    (folder / "app.py").write_text("VERSION = '2.0.0'\n\n\ndef main():\n    raise ValueError(VERSION)\n")
    (folder / "lib" / "pump.py").write_text("x = 1\n")
    (folder / "table.bin").write_bytes(os.urandom(10000))
    (folder / ".hidden").write_text("no")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "app.pyc").write_text("no")
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "release.pem"
    sign.generate_key(path)
    return path


def made(folder: Path, **changes: Any) -> Artifact:
    options: dict[str, Any] = {"name": "app", "version": "2.0.0", "boards": ["ESP32_GENERIC"], **changes}
    return build(folder, **options)


def opened(artifact: Artifact, trust: dict[str, Any]) -> Manifest:
    return asyncio.run(verify.open_envelope(artifact.envelope, verify.Trust(trust)))[0]


def test_sources_are_compiled_for_micropython_and_hidden_files_left_out(source: Path) -> None:
    artifact = made(source)
    assert [path for path, _ in artifact.files()] == ["app.mpy", "lib/pump.mpy", "table.bin"]
    assert dict(artifact.files())["app.mpy"][:2] == b"M\x06"
    assert artifact.info.mpy == 6


def test_sources_are_kept_for_cpython(source: Path) -> None:
    artifact = made(source, runtime="cpython")
    assert [path for path, _ in artifact.files()] == ["app.py", "lib/pump.py", "table.bin"]
    assert artifact.info.mpy is None


def test_the_same_sources_give_the_same_bytes_anywhere_and_at_any_time(source: Path, tmp_path: Path) -> None:
    first = made(source)
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    source.rename(elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    assert made(elsewhere) == first


def test_no_path_of_this_machine_is_in_the_artifact(source: Path) -> None:
    artifact = made(source)
    assert str(source).encode() not in artifact.payload + artifact.manifest


def test_blocks_and_files_are_hashed_one_by_one(source: Path) -> None:
    artifact = made(source)
    assert len(artifact.blocks) == 32 * (artifact.info.blocks + len(artifact.info.files))
    assert artifact.blocks == hash_list(artifact.payload, [content for _, content in artifact.files()])


def test_executable_files_keep_their_mode(source: Path) -> None:
    (source / "tool.sh").write_text("#!/bin/sh\n")
    (source / "tool.sh").chmod(0o744)
    files = {entry[0]: entry[3] for entry in made(source, runtime="cpython").info.files}
    assert files["tool.sh"] == 0o755
    assert files["app.py"] is None


def test_device_writes_exactly_the_files_that_were_built(source: Path, key: Path, tmp_path: Path) -> None:
    artifact = sign.sign(made(source), key)
    manifest = opened(artifact, sign.trust_document([key]))
    slot = tmp_path / "slots" / "a"
    (tmp_path / "slots" / "store").mkdir(parents=True)
    writer = Writer(str(slot), manifest, artifact.blocks)
    asyncio.run(writer.resume())
    for number in range(manifest.blocks):
        writer.block(number, artifact.payload[number * 4096 : (number + 1) * 4096])
    asyncio.run(writer.finish())
    assert {str(p.relative_to(slot)): p.read_bytes() for p in slot.rglob("*") if p.is_file()} == dict(artifact.files())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"version": "x" * 65}, "version"),
        ({"boards": []}, "boards"),
        ({"runtime": "ruby"}, "runtime"),
        ({"security_version": -1}, "security_version"),
        ({"expires": -5}, "expires"),
    ],
)
def test_wrong_options_are_named(source: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        made(source, **change)


def test_source_that_does_not_compile_is_named(source: Path) -> None:
    (source / "lib" / "pump.py").write_text("def (:\n")
    with pytest.raises(InputError, match=r"pump\.py: does not compile"):
        made(source)


def test_links_are_refused(source: Path) -> None:
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="passwd: is a link"):
        made(source)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            made(folder)


def test_source_and_bytecode_of_one_module_are_refused(source: Path) -> None:
    (source / "app.mpy").write_bytes(b"M")
    with pytest.raises(InputError, match=r"files\[1\]"):
        made(source)


def test_manifest_that_does_not_fit_its_envelope_is_refused(tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / f"{'long' * 10}{n}.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="fewer files"):
        made(tmp_path)


def test_artifact_comes_back_from_its_folder(source: Path, key: Path, tmp_path: Path) -> None:
    artifact = sign.sign(made(source), key)
    artifact.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blocks", "envelope", "payload"]
    assert Artifact.read(tmp_path / "out") == artifact


@pytest.mark.parametrize("part", ["envelope", "blocks", "payload"])
def test_damaged_and_missing_parts_are_named(source: Path, tmp_path: Path, part: str) -> None:
    made(source).write(tmp_path / "out")
    path = tmp_path / "out" / part
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=part):
        Artifact.read(tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match=part):
        Artifact.read(tmp_path / "out")


def test_signing_key_is_private_and_never_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        sign.generate_key(key)
    assert key.read_bytes() == before


def test_signature_is_reproducible_and_replaces_its_predecessor(source: Path, key: Path) -> None:
    once = sign.sign(made(source), key)
    twice = sign.sign(sign.sign(made(source), key), key)
    assert once.envelope == twice.envelope


def test_both_verifiers_agree_on_good_and_bad_signatures(source: Path, key: Path) -> None:
    artifact = sign.sign(made(source), key)
    trust = sign.trust_document([key])
    assert opened(artifact, trust).version == "2.0.0"
    assert second.valid(artifact.envelope, trust) == [artifact.signatures[0][0].hex()]
    signer, algorithm, signature = artifact.signatures[0]
    artifact.signatures = [(signer, algorithm, signature[:63] + bytes([signature[63] ^ 1]))]
    assert second.valid(artifact.envelope, trust) == []
    with pytest.raises(UpdateError, match="signature"):
        opened(artifact, trust)


def test_threshold_needs_distinct_keys(source: Path, tmp_path: Path) -> None:
    keys = [tmp_path / f"{n}.pem" for n in range(3)]
    for path in keys:
        sign.generate_key(path)
    trust = sign.trust_document(keys, threshold=2)
    artifact = sign.sign(made(source), keys[0])
    with pytest.raises(UpdateError, match="1 valid, 2 needed"):
        opened(artifact, trust)
    assert opened(sign.sign(artifact, keys[2]), trust).name == "app"


def test_trust_file_can_be_made_of_public_keys_only(key: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    public = tmp_path / "public.pem"
    half = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    public.write_bytes(half.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert sign.trust_document([public]) == sign.trust_document([key])


def test_impossible_thresholds_and_foreign_keys_are_refused(key: Path, tmp_path: Path) -> None:
    other = tmp_path / "rsa.pem"
    other.write_text("not a key")
    for keys, threshold in (([key], 2), ([key], 0), ([], 1), ([key, key], 1), ([other], 1), ([tmp_path / "none"], 1)):
        with pytest.raises(InputError):
            sign.trust_document(keys, threshold)


class FakeAws:
    """Records what a boto3 client is asked for."""

    class exceptions:  # boto3's own spelling
        class ResourceAlreadyExistsException(Exception):
            pass

        class ResourceNotFoundException(Exception):
            pass

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.fails_at = -1
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.meta = SimpleNamespace(region_name="eu-central-1")

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        self.puts += 1
        if self.puts == self.fails_at:
            raise ConnectionError
        self.objects[f"{Bucket}/{Key}"] = Body

    def describe_stream(self, *, streamId: str) -> None:
        if streamId not in self.streams:
            raise self.exceptions.ResourceNotFoundException

    def create_stream(self, *, streamId: str, files: list[dict[str, Any]], roleArn: str) -> None:
        if streamId in self.streams:
            raise self.exceptions.ResourceAlreadyExistsException
        self.streams[streamId] = files


def test_publishing_stores_three_objects_and_a_stream_over_them(source: Path, key: Path) -> None:
    artifact = sign.sign(made(source, name="my app", version="2.0.0+x"), key)
    aws = FakeAws()
    document = publish.publish(artifact, aws, aws)
    files = aws.streams[document["stream"]]
    parts = [aws.objects[f"{f['s3Location']['bucket']}/{f['s3Location']['key']}"] for f in files]
    assert parts == [artifact.envelope, artifact.blocks, artifact.payload]
    assert [f["fileId"] for f in files] == [0, 1, 2]
    assert document["operation"] == "ota"
    assert document["artifact"] == {"envelope": len(parts[0]), "blocks": len(parts[1]), "payload": len(parts[2])}


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "s3.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_https_urls_have_the_host_of_the_region(source: Path, key: Path, region: str, host: str) -> None:
    aws = FakeAws()
    aws.meta = SimpleNamespace(region_name=region)
    document = publish.publish(sign.sign(made(source), key), aws, aws, bucket="b", https=True)
    for part in ("envelope", "blocks", "payload"):
        url = f"https://{host}/b/{document['stream']}/{part}"
        assert document["urls"][part] == f"${{aws:iot:s3-presigned-url:{url}}}"


def test_publishing_twice_is_the_same_as_once(source: Path, key: Path) -> None:
    artifact = sign.sign(made(source), key)
    aws = FakeAws()
    assert publish.publish(artifact, aws, aws) == publish.publish(artifact, aws, aws)
    # An object that is put again is another object to a stream: devices that are reading it would be cut off.
    assert (len(aws.streams), aws.puts) == (1, 3)


def test_publishing_goes_on_after_a_failure_half_way(source: Path, key: Path) -> None:
    artifact = sign.sign(made(source), key)
    aws = FakeAws()
    aws.fails_at = 2
    with pytest.raises(ConnectionError):
        publish.publish(artifact, aws, aws)
    publish.publish(artifact, aws, aws)
    assert (len(aws.streams), len(aws.objects)) == (1, 3)


def test_another_signature_gives_another_stream(source: Path, key: Path, tmp_path: Path) -> None:
    artifact = sign.sign(made(source), key)
    first = publish.stream_id(artifact)
    sign.generate_key(tmp_path / "second.pem")
    assert publish.stream_id(sign.sign(artifact, tmp_path / "second.pem")) != first


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    for data in (raw, b"EAM1" + raw):
        try:
            manifest, signatures = parse_envelope(data)
        except UpdateError as error:
            assert error.code == "envelope"
        else:
            assert Artifact(manifest, b"", b"", signatures).envelope == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.data())
def test_any_json_in_any_member_is_a_manifest_or_refused(data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(GOOD_MANIFEST)
    member = data.draw(st.sampled_from(sorted(document)))
    where = document
    if member == "payload" and data.draw(st.booleans()):
        where, member = document["payload"], data.draw(st.sampled_from(sorted(document["payload"])))
    where[member] = data.draw(JSON)
    try:
        manifest = parse_manifest(json.dumps(document).encode())
    except UpdateError as error:
        assert error.code == "manifest"
    else:
        assert 0 < manifest.size == sum(entry[1] for entry in manifest.files)


GOOD_MANIFEST = json.dumps(
    {
        "format": 1,
        "name": "a",
        "version": "1",
        "security_version": 0,
        "boards": ["B"],
        "runtime": "any",
        "mpy": 6,
        "expires": None,
        "files": [["a", 1, 420]],
        "requires": {"agent": "0.1.0"},
        "downgrade": None,
        "type": "application",
        "payload": {"size": 1, "sha256": "00" * 32, "block": 4096, "blocks_sha256": "00" * 32},
    }
)

# SPDX-License-Identifier: Apache-2.0
"""Deltas: what is made, that it is made again the same, which are published, and what the fleet index decides."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.ota.delta import MAGIC, apply
from edgefleet import cli
from edgefleet.artifacts import delta, publish, sign
from edgefleet.artifacts.build import Artifact, build
from edgefleet.errors import InputError
from tests.fleet.site_world import SiteWorld

SEED = 20261123
TEXT = "\n".join(f"def function_{n}(x):\n    return x * {n * 7919 % 1000}\n" for n in range(400))


def artifact(folder: Path, version: str, text: str = TEXT, **options: Any) -> Artifact:
    source = folder / f"source-{version}"
    source.mkdir(exist_ok=True)
    (source / "app.py").write_text(f"VERSION = '{version}'\n{text}")
    return build(source, name="app", version=version, boards=["*"], **options)


@pytest.fixture
def old(tmp_path: Path) -> Artifact:
    return artifact(tmp_path, "1.0.0")


@pytest.fixture
def new(tmp_path: Path) -> Artifact:
    return artifact(tmp_path, "1.0.1", TEXT.replace("function_200(x)", "function_200(x, y=1)"))


def fits(old: bytes, new: bytes) -> None:
    one, two = Artifact(b"old", b"", old), Artifact(b"new", b"", new)
    patch = delta.make_delta(one, two)  # applies it, too
    assert delta.apply_delta(patch, one, two) == new


def test_a_small_change_is_a_small_patch_and_the_same_each_time(old: Artifact, new: Artifact) -> None:
    patch = delta.make_delta(old, new)
    assert len(patch) < 0.03 * len(new.payload)
    assert patch == delta.make_delta(old, new)


def test_many_pairs() -> None:
    chance = random.Random(SEED)
    for _ in range(150):
        before = chance.randbytes(chance.randrange(1, 20000))
        after = bytearray(before)
        for _ in range(chance.randrange(6)):
            at, source = chance.randrange(len(after) + 1), chance.randrange(len(after) + 1)
            after[at:at] = after[source : source + chance.randrange(3000)]
            if after:
                after[chance.randrange(len(after))] ^= 5
        fits(before, bytes(after) or b"x")


@given(
    st.binary(min_size=1, max_size=600), st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=40)), max_size=6)
)
@settings(max_examples=200, deadline=None)
def test_any_pair(before: bytes, changes: list[tuple[int, bytes]]) -> None:
    after = before
    for at, data in changes:
        after = after[:at] + data + after[at + len(data) // 2 :]
    fits(before, after)


class Sink(delta.Payload):
    """Counts, and never has more than it may."""

    def block(self, number: int, data: memoryview) -> None:
        assert len(data) == min(4096, self.size - number * 4096)
        super().block(number, data)


@given(st.binary(max_size=300), st.integers(9, 12), st.integers(1, 20000), st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_decoder_bears_any_bytes(body: bytes, bits: int, size: int, packed: bool) -> None:
    patch = MAGIC + bytes([bits]) + bytes(32) + (delta._deflate(body, 8) if packed else body)
    made = Sink(bytearray(size))
    try:
        for _ in apply(io.BytesIO(patch), bytes(32), delta.Payload(b"0123456789" * 100), size, made, bytearray(4096)):
            pass
    except (ValueError, EOFError):
        pass
    assert len(made.data) == size


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), max_size=30),
    st.binary(max_size=999),
)
@settings(max_examples=300, deadline=None)
def test_the_decoder_bears_any_records(records: list[tuple[int, int, int]], rest: bytes) -> None:
    body = b"".join(b"".join(map(delta._number, one)) + rest[: one[1] + one[2]] for one in records)
    made = Sink(bytearray(500))
    patch = MAGIC + bytes([9]) + bytes(32) + delta._deflate(body, 8)
    try:
        for _ in apply(io.BytesIO(patch), bytes(32), delta.Payload(rest), 500, made, bytearray(4096)):
            pass
    except (ValueError, EOFError):
        pass
    assert len(made.data) == 500


def test_only_what_saves_enough_is_published(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    text = f"DATA = {chance.randbytes(9000)!r}\n"
    new = artifact(tmp_path, "2.0.0", text)
    near = artifact(tmp_path, "1.0.0", text)
    far = artifact(tmp_path, "0.5.0", f"DATA = {chance.randbytes(9000)!r}\n")
    firmware = artifact(tmp_path, "0.6.0", text, type="firmware")
    made = [delta.Delta.make(one, new, devices) for one, devices in ((far, 9), (firmware, 9), (near, 1))]
    assert [one.old.version for one in delta.chosen(made, new, 16)] == ["1.0.0"]


def test_the_most_needed_are_published_first(tmp_path: Path, new: Artifact) -> None:
    made = [delta.Delta.make(artifact(tmp_path, f"0.{n}.0"), new, n) for n in range(4)]
    assert [one.devices for one in delta.chosen(made, new, 2)] == [3, 2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteWorld]:
    world = SiteWorld(tmp_path_factory.mktemp("site") / "data")
    yield world
    world.close()


@pytest.fixture
def run(world: SiteWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("EDGEFLEET_DATA", str(world.data))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["artifact", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "release.pem"
    sign.generate_key(path)
    return path


def stored(made: Artifact, folder: Path, key: Path) -> Artifact:
    sign.sign(made, key).write(folder)
    return made


def test_command_makes_a_patch(run: Any, tmp_path: Path, key: Path, old: Artifact, new: Artifact) -> None:
    stored(old, tmp_path / "v1", key)
    stored(new, tmp_path / "v2", key)
    code, out, _ = run("delta", "v1", "v2", "--out", "patch", "--json")
    patch = (tmp_path / "patch").read_bytes()
    assert (code, json.loads(out)["bytes"]) == (0, len(patch))
    assert patch == delta.make_delta(old, new)


def test_patches_are_further_files_of_the_stream(
    run: Any, world: SiteWorld, tmp_path: Path, key: Path, old: Artifact, new: Artifact
) -> None:
    stored(old, tmp_path / "v1", key)
    stored(new, tmp_path / "v2", key)
    code, out, error = run("publish", "v2", "--delta-from", "v1")
    document = json.loads(out)
    patch = delta.make_delta(old, new)
    assert (code, document["deltas"]) == (0, [{"from": old.digest, "bytes": len(patch), "file": 3}])
    assert old.digest[:16] in error
    (stream,) = [world.client("iot").describe_stream(streamId=document["stream"])["streamInfo"]]
    place = stream["files"][3]["s3Location"]
    assert world.client("s3").get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read() == patch
    assert document["stream"] != publish.stream_id(new)


def test_over_https_each_patch_has_its_url(run: Any, tmp_path: Path, key: Path, old: Artifact, new: Artifact) -> None:
    stored(old, tmp_path / "v1", key)
    stored(new, tmp_path / "v2", key)
    entry = json.loads(run("publish", "v2", "--https", "--delta-from", "v1")[1])["deltas"][0]
    assert set(entry) == {"from", "bytes", "url"}
    assert entry["url"].startswith("${aws:iot:s3-presigned-url:https://")


def test_what_the_devices_of_a_group_run_decides(
    run: Any, world: SiteWorld, tmp_path: Path, key: Path, old: Artifact, new: Artifact
) -> None:
    stored(old, tmp_path / "built" / "v1", key)
    stored(artifact(tmp_path, "0.9.0"), tmp_path / "built" / "v0", key)  # nobody runs it
    stored(new, tmp_path / "built" / "v2", key)
    iot = world.client("iot")
    iot.create_thing_group(thingGroupName="hall")
    runs = {"d1": old.digest[:16], "d2": old.digest[:16], "d3": "f" * 16, "d4": None, "d5": new.digest[:16]}
    for name, identity in runs.items():
        iot.create_thing(thingName=name)
        iot.add_thing_to_thing_group(thingGroupName="hall", thingName=name)
        if identity:
            state = json.dumps({"state": {"reported": {"artifact": identity}}}).encode()
            world.client("iot-data").update_thing_shadow(thingName=name, payload=state)
    for choice in (("--target", "group/hall"), ("--delta-for", "thingGroupNames:hall")):
        code, out, error = run("publish", "built/v2", *choice, "--library", "built")
        assert code == 0
        assert [entry["from"] for entry in json.loads(out)["deltas"]] == [old.digest]
        lines = [line.split() for line in error.splitlines()]
        assert [line[:3] for line in lines if "1.0.0" in line] == [[old.digest[:16], "1.0.0", "2"]]
        assert {line[0] for line in lines if "library" in line} == {"f" * 16, "unknown"}


def test_devices_without_a_library_are_refused(run: Any, tmp_path: Path, key: Path, new: Artifact) -> None:
    stored(new, tmp_path / "v2", key)
    code, _, error = run("publish", "v2", "--target", "group/all")
    assert (code, "--library" in error) == (2, True)
    code, _, error = run("publish", "v2", "--target", "hall")
    assert (code, "group/NAME" in error) == (2, True)


def test_a_broken_artifact_in_the_library_is_named(tmp_path: Path, key: Path, old: Artifact) -> None:
    stored(old, tmp_path / "v1", key)
    (tmp_path / "v1" / "payload").write_bytes(b"x")
    with pytest.raises(InputError, match="payload"):
        delta.library(tmp_path)

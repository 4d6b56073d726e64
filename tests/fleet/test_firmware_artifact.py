# SPDX-License-Identifier: Apache-2.0
"""ESP32 app images: what we read is what esptool reads, and what the bootloader would refuse is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from esptool.bin_image import LoadFirmwareImage
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet import cli
from edgefleet.artifacts import delta, publish
from edgefleet.artifacts.build import Artifact
from edgefleet.artifacts.firmware import CHIPS, build_firmware, read_image
from edgefleet.errors import InputError
from hil import esp32_image

TEXT = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=31)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "micropython.bin"
    path.write_bytes(esp32_image.app_image("v1.29.0", "micropython", 9000))
    return path


@settings(deadline=None, max_examples=30)
@given(version=TEXT, project=TEXT, size=st.integers(256, 9000), chip=st.sampled_from(["esp32", "esp32s3", "esp32c3"]))
def test_esptool_and_we_agree_on_images(
    tmp_path_factory: pytest.TempPathFactory, version: str, project: str, size: int, chip: str
) -> None:
    data = esp32_image.app_image(version, project, size, chip)
    found = read_image(data)
    path = tmp_path_factory.mktemp("image") / "image.bin"
    path.write_bytes(data)
    theirs: Any = LoadFirmwareImage(chip, str(path))
    assert theirs.checksum == theirs.calculate_checksum()
    assert theirs.stored_digest == theirs.calc_digest
    assert theirs.chip_id == next(number for number, name in CHIPS.items() if name == found.chip)
    assert (found.version, found.project) == (version, project)
    assert found.size == len(data)
    assert found.size == esp32_image.verify_image(lambda at, n: data[at : at + n], len(data), esp32_image.CHIPS[chip])


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, 1215), bit=st.integers(0, 7))
def test_an_image_with_a_wrong_bit_is_refused_by_all(place: int, bit: int) -> None:
    data = bytearray(esp32_image.app_image("v1", "p", 1024))
    data[place % len(data)] ^= 1 << bit
    if place % len(data) == 23 and not data[23]:
        return  # says that it has no hash, and is whole without one
    with pytest.raises(InputError):
        read_image(bytes(data))
    with pytest.raises(esp32_image.EspError):
        esp32_image.verify_image(lambda at, n: data[at : at + n], len(data), 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: b"\x00" + data[1:], "begins with 0x00"),
        (lambda data: data[:32] + b"\x50\x00\x00\x00" + data[36:], "not one with a bootloader"),
        (lambda data: data[:12] + b"\x63\x00" + data[14:], "unknown chip 99"),
        (lambda data: data[:-5000], "segment 0"),
        (lambda data: data[:-40], "checksum|too early"),
        (lambda data: data[:20], "too early"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(image: Path, change: Any, problem: str) -> None:
    image.write_bytes(change(image.read_bytes()))
    with pytest.raises(InputError, match=problem):
        build_firmware(image, ["ESP32_GENERIC"])


def test_the_artifact_has_the_version_of_the_image_and_wants_two_partitions(image: Path) -> None:
    info = build_firmware(image, ["ESP32_GENERIC"], security_version=3).info
    assert (info.type, info.version, info.security_version) == ("firmware", "v1.29.0", 3)
    assert info.requires == {"partitions": "ota"}
    assert [entry[0] for entry in info.files] == ["micropython.bin"]
    assert info.mpy is None  # the image brings its own


def test_another_version_than_that_of_the_image_is_refused(image: Path) -> None:
    with pytest.raises(InputError, match=r"the image says v1\.29\.0"):
        build_firmware(image, ["ESP32_GENERIC"], version="2.0.0")


def test_the_command_builds_and_shows_an_image(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["artifact", "build", "--type", "firmware", str(image), "--board", "ESP32_GENERIC", "--out", str(out)]
    assert cli.main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["image"] == {
        "chip": "ESP32",
        "version": "v1.29.0",
        "project": "micropython",
        "idf": "v5.5",
        "size": image.stat().st_size,
    }
    assert Artifact.read(out).payload == image.read_bytes()
    assert cli.main(["artifact", "inspect", str(out)]) == 0
    assert "image.chip" in capsys.readouterr().out


def test_what_lies_behind_the_image_is_not_part_of_it() -> None:
    data = esp32_image.app_image("v1", "p", 1024)
    assert read_image(data + b"\xff" * 100).size == len(data)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Artifact, Artifact]:
    """Images of two versions, alike but for some text."""
    made = []
    for version in ("v1", "v2"):
        path = tmp_path / f"{version}.bin"
        path.write_bytes(esp32_image.app_image(version, "micropython", 60_000, fill=b"edgeagent"))
        artifact = build_firmware(path, ["ESP32_GENERIC"])
        artifact.write(tmp_path / version)
        made.append(artifact)
    return made[0], made[1]


def test_a_patch_of_two_images_is_a_file_of_the_stream(
    two: tuple[Artifact, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = two
    command = ["artifact", "delta", str(tmp_path / "v1"), str(tmp_path / "v2"), "--out", str(tmp_path / "patch")]
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["percent"] < 5
    patch = (tmp_path / "patch").read_bytes()
    assert delta.apply_delta(patch, old, new) == new.payload
    chosen = delta.chosen([delta.Delta.make(old, new)], new, delta.MOST)
    assert publish.job_document(new, chosen)["deltas"] == [{"from": old.digest, "bytes": len(patch), "file": 3}]


@pytest.mark.parametrize("choice", [("--delta-for", "thingName:a"), ("--target", "group/hall")])
def test_which_firmware_devices_run_is_not_asked_of_the_index(
    two: tuple[Artifact, Artifact], tmp_path: Path, choice: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ("--endpoint-url", "https://127.0.0.1:1", "--region", "us-east-1")
    command = ["artifact", "publish", str(tmp_path / "v2"), *choice, "--library", str(tmp_path)]
    assert cli.main([*nowhere, *command]) == 2
    assert "--delta-from" in capsys.readouterr().err

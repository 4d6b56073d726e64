# SPDX-License-Identifier: Apache-2.0
"""`edgefleet artifact`: the whole way from a folder to a verified artifact, and one line with code 2 for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeagent import __version__
from edgeagent.errors import UpdateError
from edgeagent.ota import verify
from edgefleet import devices
from edgefleet.artifacts.build import Artifact
from edgefleet.artifacts.rotation import Rotation
from edgefleet.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("VERSION = '2.0.0'\n")
    return tmp_path


def artifact(*arguments: str) -> int:
    return main(["artifact", *arguments])


def build(*more: str) -> int:
    options = ["--out", "out", "--name", "app", "--version", "2.0.0", "--board", "ESP32_GENERIC"]
    return artifact("build", "src", *options, *more)


def test_keygen_build_sign_trust_verify_inspect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert artifact("keygen", "release.pem") == 0
    key_id = capsys.readouterr().out.strip()
    assert artifact("trust", "release.pem", "--out", "trust.json") == 0
    assert json.loads((folder / "trust.json").read_text())["keys"][0]["id"] == key_id
    assert build("--security-version", "3", "--expires", "4000000000") == 0
    assert artifact("sign", "out", "--key", "release.pem") == 0
    capsys.readouterr()
    assert artifact("verify", "out", "--trust", "trust.json") == 0
    assert capsys.readouterr().out.strip() == f"valid: app 2.0.0, signed by {key_id}"
    assert artifact("inspect", "out", "--json", "--trust", "trust.json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["security_version"], shown["expires"]) == (3, 4000000000)
    assert shown["signatures"] == [{"key": key_id, "algorithm": "ecdsa-p256", "state": "valid"}]


def test_agent_is_built_signed_and_verified_like_an_application(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact("keygen", "release.pem")
    artifact("trust", "release.pem", "--out", "trust.json")
    assert artifact("build", "--type", "agent", "--board", "ESP32_GENERIC", "--out", "agent") == 0
    artifact("sign", "agent", "--key", "release.pem")
    capsys.readouterr()
    assert artifact("verify", "agent", "--trust", "trust.json") == 0
    made = Artifact.read(folder / "agent")
    assert (made.info.type, made.info.name, made.version) == ("agent", "edgeagent", __version__)
    assert dict(made.files()) == devices.agent_bytecode("ESP32_GENERIC")
    assert len(made.files()) <= 128
    assert len(made.envelope) <= 4096


def test_agent_says_the_version_that_it_was_built_with(folder: Path) -> None:
    options = ("--type", "agent", "--board", "UNIX_VIRTUAL", "--out", "agent")
    assert artifact("build", *options, "--version", "7.8.9", "--optimise", "2") == 0
    made = Artifact.read(folder / "agent")
    assert made.version == "7.8.9"
    assert b"7.8.9" in dict(made.files())["edgeagent/__init__.mpy"]
    assert __version__.encode() not in dict(made.files())["edgeagent/__init__.mpy"]


def test_one_agent_for_boards_that_need_different_ones_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boards = ("--board", "ESP32_GENERIC@2-", "--board", "RPI_PICO_W")
    assert "their agents differ" in refused(capsys, "build", "--type", "agent", *boards, "--out", "agent")


@pytest.mark.parametrize("more", [("src",), ("--runtime", "cpython")], ids=["a folder is given", "not for boards"])
def test_agent_takes_no_folder_and_is_for_boards(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    line = refused(capsys, "build", "--type", "agent", "--board", "ESP32_GENERIC", "--out", "agent", *more)
    assert "takes no folder" in line


def test_application_needs_folder_name_and_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs FOLDER" in refused(capsys, "build", "src", "--board", "ESP32_GENERIC", "--out", "out")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert artifact(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_unsigned_artifact_does_not_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact("keygen", "release.pem")
    artifact("trust", "release.pem", "--out", "trust.json")
    build()
    capsys.readouterr()
    assert "signature: 0 valid, 1 needed" in refused(capsys, "verify", "out", "--trust", "trust.json")


def test_wrong_input_is_one_line_that_names_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "src/none" in refused(capsys, "inspect", "src/none")
    assert "no.pem" in refused(capsys, "trust", "no.pem", "--out", "t.json")
    (folder / "src" / "app.py").write_text("def (:\n")
    assert build() == 2
    assert "app.py: does not compile" in capsys.readouterr().err
    (folder / "trust.json").write_text("{}")
    (folder / "src" / "app.py").write_text("")
    build()
    capsys.readouterr()
    assert "trust.json: keys" in refused(capsys, "verify", "out", "--trust", "trust.json")


def rewrite(folder: Path, **changes: object) -> None:
    """Put an artifact into folder/out whose manifest nobody has signed."""
    assert build() == 0
    made = Artifact.read(folder / "out")
    Artifact(json.dumps(json.loads(made.manifest) | changes).encode(), made.blocks, made.payload).write(folder / "out")


def test_nesting_without_end_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build() == 0
    (folder / "deep.json").write_text("[" * 100_000)
    Artifact(b"[" * 4000, b"", b"x").write(folder / "deep")
    Rotation(b"[" * 4000).write(folder / "turn")
    capsys.readouterr()
    for arguments, named in (
        (("out", "--trust", "deep.json"), "deep.json"),
        (("deep",), "deep/envelope"),
        (("turn",), "turn/envelope"),
    ):
        assert artifact("inspect", *arguments) == 2
        said = capsys.readouterr().err
        assert named in said and "recursion" in said and said.count("\n") == 1


def test_time_beyond_all_calendars_is_shown_as_a_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, expires=1 << 40)
    capsys.readouterr()
    assert artifact("inspect", "out") == 0
    assert str(1 << 40) in capsys.readouterr().out


def test_what_a_stranger_wrote_cannot_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, name="a\x1b]0;owned\x07\x1b[2J\x9b\u202e")
    capsys.readouterr()
    assert artifact("inspect", "out") == 0
    assert "a\\x1b]0;owned\\x07\\x1b[2J\\x9b\\u202e" in capsys.readouterr().out
    rewrite(folder, **{"\x1b[2J": 1})
    capsys.readouterr()
    assert artifact("inspect", "out") == 2
    assert "\\x1b[2J" in capsys.readouterr().err


def test_what_a_stranger_wrote_cannot_pass_for_lines_of_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact("keygen", "release.pem")
    artifact("trust", "release.pem", "--out", "trust.json")
    evil = "1\nSIGNED BY\u2028valid\r\t"
    rewrite(folder, name=evil, version=evil, boards=[evil], requires={evil: evil})
    artifact("sign", "out", "--key", "release.pem")
    for command in (("inspect", "out"), ("verify", "out", "--trust", "trust.json")):
        capsys.readouterr()
        assert artifact(*command) == 0
        shown = capsys.readouterr().out
        assert "1\\nSIGNED BY\\u2028valid\\r\\t" in shown
        assert not [line for line in shown.splitlines() if line.startswith("SIGNED BY\u2028") or "\t" in line]
    shown = said(capsys, "sign", "out", "--key", "release.pem")
    assert len(shown.splitlines()) == 2


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert artifact(*arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("version", ["2.0.0", "v2", "2.0.0-rc1", "2"])
def test_versions_that_have_an_order_are_built_without_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    assert build("--version", version) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("version", ["nightly", "2.x", "a1b2c3d"])
def test_a_version_that_devices_cannot_order_is_built_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    assert build("--version", version) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--version {version}: devices cannot tell" in line
    assert Artifact.read(folder / "out").version == version


def test_an_artifact_may_require_what_the_device_configuration_says(folder: Path) -> None:
    """One key for several products: each device takes those of its own."""
    assert build("--require", "product=pump", "--runtime", "any") == 0
    info = Artifact.read(folder / "out").info
    for configured, good in (({"product": "pump"}, True), ({"product": "valve"}, False), ({}, False)):
        facts = {**configured, "board": "ESP32_GENERIC", "runtime": "micropython 1.29.0", "agent": __version__}
        if good:
            verify.check(info, facts, None, 0)
        else:
            with pytest.raises(UpdateError, match="requires: product pump"):
                verify.check(info, facts, None, 0)


def test_publishing_without_a_site_says_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build()
    capsys.readouterr()
    assert "holds no site" in refused(capsys, "publish", "out", "--data", "none")

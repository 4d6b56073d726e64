# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTPS requests against a real S3 front over real TLS, from CPython and from MicroPython."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent import https
from edgeagent.errors import TransportError
from edgeagent.identity import pem_to_der
from edgeagent.ports.linux import LinuxPort
from edgefleet import pki
from tests.fleet.api_world import ApiWorld
from tests.support import MICROPYTHON, ROOT

BODY = bytes(range(256)) * 4096  # 1 MiB
PROGRAM = """
import asyncio
from edgeagent import https
from edgeagent.errors import AgentError
from edgeagent.ports.micropython import MicroPythonPort

class Config:
    state_dir = slots_dir = "/nowhere"

class Body:
    def read(self, size):
        return bytes(range(256)) * (size // 256)

got = []

async def main(method, url, ca, size):
    try:
        status, head, text = await https.request(
            MicroPythonPort(Config), method, url, ca, body=Body() if size else None, size=size,
            sink=lambda piece: got.append(len(piece)))
        print(status, text, sum(got))
    except AgentError as error:
        print(type(error).__name__, error)

"""  # and a call of main: MicroPython takes no argument as long as a presigned URL


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    world = ApiWorld(tmp_path_factory.mktemp("https"), {}, max_object=2_000_000)
    yield world
    world.close()


def presign(world: ApiWorld, key: str, method: str = "put_object", expires: int = 60) -> str:
    s3 = world.client("s3", signature_version="s3v4")
    url: str = s3.generate_presigned_url(method, {"Bucket": "bundles", "Key": key}, ExpiresIn=expires)
    return url


def ask(world: ApiWorld, method: str, url: str, ca: Path | None = None, **options: Any) -> tuple[int, bytes, bytes]:
    return asyncio.run(https.request(LinuxPort(), method, url, str(ca or world.ca), **options))


def on_micropython(tmp_path: Path, ca: Path, method: str, url: str, size: int = 0) -> str:
    der = tmp_path / "ca.der"
    der.write_bytes(pem_to_der(ca.read_bytes()))
    program = tmp_path / "program.py"
    program.write_text(f"{PROGRAM}asyncio.run(main{(method, url, str(der), size)!r})\n")
    result = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=128k", str(program)],
        env={**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout + result.stderr


def other_ca(tmp_path: Path) -> Path:
    pki.Authority.load_or_create(tmp_path / "other")
    return tmp_path / "other" / "ca.pem"


def test_a_megabyte_is_put(world: ApiWorld) -> None:
    status, _, _ = ask(world, "PUT", presign(world, "linux"), body=io.BytesIO(BODY), size=len(BODY))
    assert status == 200
    assert world.objects.get("bundles", "linux") == BODY


def test_a_range_is_got(world: ApiWorld) -> None:
    world.objects.put("bundles", "ranged", BODY)
    taken: list[bytes] = []
    status, head, _ = ask(
        world,
        "GET",
        presign(world, "ranged", "get_object"),
        headers="Range: bytes=4096-8191\r\n",
        sink=lambda piece: taken.append(bytes(piece)),
    )
    assert (status, b"".join(taken)) == (206, BODY[4096:8192])
    assert https.field(head, b"content-range") == b"bytes 4096-8191/1048576"


def test_a_wrong_url_is_refused_before_the_body_is_taken(world: ApiWorld) -> None:
    body = io.BytesIO(BODY)
    status, _, text = ask(world, "PUT", presign(world, "a").replace("/a?", "/b?"), body=body, size=len(BODY))
    assert status == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in text
    assert body.tell() == 0


def test_a_server_of_another_ca_is_refused(world: ApiWorld, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"(?i)verif"):
        ask(world, "GET", presign(world, "linux", "get_object"), other_ca(tmp_path))


def test_a_server_of_another_name_is_refused(world: ApiWorld) -> None:
    with pytest.raises(TransportError, match=r"(?i)verif"):
        ask(world, "GET", presign(world, "linux", "get_object").replace("127.0.0.1", "localhost"))


def test_a_megabyte_is_put_in_a_heap_of_128_kb(world: ApiWorld, tmp_path: Path) -> None:
    said = on_micropython(tmp_path, world.ca, "PUT", presign(world, "board"), len(BODY))
    assert said.startswith("200"), said
    assert world.objects.get("bundles", "board") == BODY


def test_a_megabyte_is_got_in_a_heap_of_128_kb(world: ApiWorld, tmp_path: Path) -> None:
    world.objects.put("bundles", "got", BODY)
    said = on_micropython(tmp_path, world.ca, "GET", presign(world, "got", "get_object"))
    assert said.split() == ["200", "b''", str(len(BODY))]


def test_micropython_refuses_another_ca_and_another_name(world: ApiWorld, tmp_path: Path) -> None:
    url = presign(world, "board", "get_object")
    assert "TransportError" in on_micropython(tmp_path, other_ca(tmp_path), "GET", url)
    assert "TransportError" in on_micropython(tmp_path, world.ca, "GET", url.replace("127.0.0.1", "localhost"))

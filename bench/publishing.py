# SPDX-License-Identifier: Apache-2.0
"""Messages per second at QoS 1 over mutual TLS to the embedded broker: ours beside its peers, in one run.

CPython: the built-in client, paho-mqtt and awsiotsdk's CRT client (both by themselves, not through our transports).
MicroPython: the same built-in client beside what umqtt.simple does.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgeagent.identity import pem_to_der
from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from hil.virtual_board import interpreter
from tests.integration.peer import Credentials, register_device

ROOT = Path(__file__).resolve().parent.parent
BYTES = 100
COUNT = 3000
COUNT_MICROPYTHON = 1500
IN_FLIGHT = 8


def measure(fleet: FleetManager, judge: Judge, folder: Path) -> dict[str, int]:
    """Who → messages per second."""
    credentials = register_device(judge, folder, "bench-publisher")
    site = _Site(fleet, credentials, folder)
    found = {
        "cpython, ours": site.program([sys.executable], "ours", COUNT, pem=True),
        "cpython, umqtt.simple-like": site.program([sys.executable], "simple", COUNT, pem=True),
        "cpython, paho-mqtt": site.paho(),
        "cpython, awsiotsdk": site.aws(),
    }
    board = [interpreter(), "-X", "heapsize=128k"]
    for who in ("ours", "simple"):
        label = "ours" if who == "ours" else "umqtt.simple-like"
        found[f"micropython, {label}"] = site.program(board, who, COUNT_MICROPYTHON, pem=False)
    return found


class _Site:
    def __init__(self, fleet: FleetManager, credentials: Credentials, folder: Path) -> None:
        self.port = fleet.mqtt_port
        self.pem = {"ca": Path(fleet.ready["ca"]), "cert": credentials.certificate, "key": credentials.key}
        self.der = {name: folder / f"{name}.der" for name in self.pem}
        for name, path in self.pem.items():
            self.der[name].write_bytes(pem_to_der(path.read_text()))

    def program(self, command: list[str], who: str, count: int, *, pem: bool) -> int:
        files = self.pem if pem else self.der
        arguments = [
            who,
            str(count),
            str(BYTES),
            "localhost",
            str(self.port),
            "bench-publisher",
            *map(str, files.values()),
        ]
        result = subprocess.run(
            [*command, str(ROOT / "bench" / "publish_program.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "MICROPYPATH": f"{ROOT}:.frozen"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{who}: {(result.stdout + result.stderr)[-600:]}")
        return int(result.stdout)

    def paho(self) -> int:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        client = paho.Client(CallbackAPIVersion.VERSION2, "bench-publisher", protocol=paho.MQTTv311)
        client.max_inflight_messages_set(IN_FLIGHT)
        ready = threading.Event()
        client.on_connect = lambda *_: ready.set()
        client.tls_set(
            str(self.pem["ca"]), str(self.pem["cert"]), str(self.pem["key"]), tls_version=ssl.PROTOCOL_TLS_CLIENT
        )
        client.connect("localhost", self.port)
        client.loop_start()
        ready.wait(10)
        start = time.monotonic()
        sent = [client.publish("edge/bench-publisher/bench", bytes(BYTES), 1) for _ in range(COUNT)]
        for one in sent:
            one.wait_for_publish(60)
        spent = time.monotonic() - start
        client.disconnect()
        client.loop_stop()
        return round(COUNT / spent)

    def aws(self) -> int:
        from awscrt import io, mqtt

        options = io.TlsContextOptions.create_client_with_mtls_from_path(str(self.pem["cert"]), str(self.pem["key"]))
        options.override_default_trust_store_from_path(None, str(self.pem["ca"]))
        client = mqtt.Client(tls_ctx=io.ClientTlsContext(options))
        connection = mqtt.Connection(client, "localhost", self.port, "bench-publisher")
        connection.connect().result(10)
        window = threading.BoundedSemaphore(IN_FLIGHT)
        start = time.monotonic()
        last: Any = None
        for _ in range(COUNT):
            window.acquire()
            last, _packet = connection.publish("edge/bench-publisher/bench", bytes(BYTES), mqtt.QoS.AT_LEAST_ONCE)
            last.add_done_callback(lambda _future: window.release())
        for _ in range(IN_FLIGHT):
            window.acquire()
        spent = time.monotonic() - start
        connection.disconnect().result(10)
        return round(COUNT / spent)

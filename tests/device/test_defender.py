# SPDX-License-Identifier: Apache-2.0
"""Device Defender reports: what a real broker carries (Mosquitto), held against the schema of AWS's documentation."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from edgeagent import clock, config, log, topics
from edgeagent.agent import Agent
from edgeagent.defender import Part, check
from edgeagent.errors import ConfigError
from edgeagent.ports.linux.metrics import Metrics
from tests.device.test_agent import Machine
from tests.device.test_mosquitto import Broker, mosquitto
from tests.support import MOSQUITTO

__all__ = ["mosquitto"]
TOPIC = topics.defender("meter")
KINDS = {"number": (int, float), "number_list": list, "string_list": list, "ip_list": list}


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def hold(report: dict[str, Any]) -> None:
    """Raise AssertionError for what aws-iot-protocol.md section 11 does not allow. Long names only."""
    assert set(report) <= {"header", "metrics", "custom_metrics"} and "header" in report
    assert set(report["header"]) == {"report_id", "version"}
    assert is_count(report["header"]["report_id"]) and report["header"]["version"] == "1.0"
    metrics = report.get("metrics", {})
    assert set(metrics) <= {"listening_tcp_ports", "listening_udp_ports", "network_stats", "tcp_connections"}
    for name in ("listening_tcp_ports", "listening_udp_ports"):
        if block := metrics.get(name):
            assert set(block) <= {"ports", "total"} and is_count(block.get("total", 0))
            for port in block["ports"]:
                assert set(port) <= {"interface", "port"} and 0 < port["port"] < 65536
            assert block["total"] >= len(block["ports"])
    if "network_stats" in metrics:
        assert set(metrics["network_stats"]) == {"bytes_in", "bytes_out", "packets_in", "packets_out"}
        assert all(is_count(value) for value in metrics["network_stats"].values())
    if "tcp_connections" in metrics:
        assert set(metrics["tcp_connections"]) == {"established_connections"}
        block = metrics["tcp_connections"]["established_connections"]
        assert set(block) <= {"connections", "total"} and block["total"] >= len(block["connections"])
        for connection in block["connections"]:
            assert set(connection) <= {"local_interface", "local_port", "remote_addr"}
            assert re.fullmatch(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]):\d+", connection["remote_addr"])
    for name, values in report.get("custom_metrics", {}).items():
        assert re.fullmatch(r"[A-Za-z0-9:_-]{1,128}", name)
        assert isinstance(values, list) and len(values) == 1 and len(values[0]) == 1, "an array of one object"
        kind, value = next(iter(values[0].items()))
        assert isinstance(value, KINDS[kind]) and not isinstance(value, bool)
    assert len(json.dumps(report)) <= 131072


class Service:
    """Plays Device Defender on a broker that does not have it, with paho-mqtt."""

    def __init__(self, broker: Broker, answers: list[str]) -> None:
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answers = answers
        self.client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, "service", protocol=paho.MQTTv311)
        credentials = broker.credentials
        client.tls_set(
            str(broker.ca), str(credentials.cert_path), str(credentials.key_path), tls_version=ssl.PROTOCOL_TLS_CLIENT
        )
        client.on_message = self._report
        client.on_connect = lambda *_: client.subscribe(TOPIC, 1)
        subscribed: queue.Queue[None] = queue.Queue()
        client.on_subscribe = lambda *_: subscribed.put(None)
        client.connect("localhost", broker.port)
        client.loop_start()
        subscribed.get(timeout=10)

    def _report(self, _client: Any, _user: Any, message: Any) -> None:
        report = json.loads(message.payload)
        self.reports.put(report)
        word = self.answers.pop(0) if self.answers else "ACCEPTED"
        answer = {"thingName": "meter", "reportId": report["header"]["report_id"], "timestamp": 1795445598000}
        if word == "ACCEPTED":
            self.client.publish(TOPIC + "/accepted", json.dumps({**answer, "status": word}))
        else:
            details = {"ErrorCode": word, "ErrorMessage": "no"}
            text = json.dumps({**answer, "status": "REJECTED", "statusDetails": details})
            self.client.publish(TOPIC + "/rejected", text)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def play(
    broker: Broker, folder: Path, answers: list[str], reports: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[dict[str, Any]], list[float], list[str]]:
    """(reports, pauses between them in seconds, log lines) of an agent whose intervals pass at once."""
    path = folder / "agent.json"
    members = {
        "endpoint": "localhost",
        "port": broker.port,
        "ca": str(broker.ca),
        "thing_name": "meter",
        "certificate": str(broker.credentials.cert_path),
        "key": str(broker.credentials.key_path),
        "state_dir": str(folder),
        "defender": {"interval": 300},
    }
    path.write_text(json.dumps(members))
    settings = config.load(str(path))
    agent = Agent(settings, Machine(settings), "1.0.0")
    lines: list[str] = []
    pauses: list[float] = []
    real = asyncio.sleep
    monkeypatch.setattr(log, "_sink", lines.append)

    async def hasty(seconds: float) -> None:
        if seconds >= 300:
            pauses.append(seconds)
        await real(min(seconds, 0.01))

    async def main() -> list[dict[str, Any]]:
        # Only the reports: jobs and shadow would wait for a service that this broker is not.
        agent.thing_name = "meter"
        agent.client = client = agent.make_client("meter", *(str(members[name]) for name in ("certificate", "key")))
        from edgeagent.mqtt.rpc import Requests

        agent.requests = Requests(client)
        await client.connect()
        reader = asyncio.create_task(agent.read(client))
        agent.connected.set()
        monkeypatch.setattr("edgeagent.defender.asyncio.sleep", hasty)
        task = asyncio.create_task(Part(agent)._run())
        try:
            found = []
            for _ in range(reports):
                found.append(await asyncio.to_thread(service.reports.get, True, 15))
            while len(pauses) < reports:
                await real(0.01)
            return found
        finally:
            task.cancel()
            await client.close()
            reader.cancel()

    service = Service(broker, answers)
    try:
        return asyncio.run(main()), pauses, lines
    finally:
        service.close()


needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the system package mosquitto")


@needs_mosquitto
def test_reports_are_as_the_service_wants_them(
    mosquitto: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports, pauses, _ = play(mosquitto, tmp_path, [], 3, monkeypatch)
    for report in reports:
        hold(report)
    ids = [report["header"]["report_id"] for report in reports]
    assert ids == sorted(set(ids)), "report ids rise"
    ports = [entry["port"] for entry in reports[0]["metrics"]["listening_tcp_ports"]["ports"]]
    assert mosquitto.port in ports
    assert reports[0]["metrics"]["tcp_connections"]["established_connections"]["total"] >= 2
    assert {"memory_free", "memory_flash_free", "connects"} <= set(reports[0]["custom_metrics"])
    assert pauses[:3] == [300, 300, 300]


@needs_mosquitto
def test_a_refused_report_is_logged_and_throttling_is_obeyed(
    mosquitto: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, pauses, lines = play(mosquitto, tmp_path, ["Throttled", "InvalidPayload"], 3, monkeypatch)
    assert pauses[:3] == [600, 300, 300]
    assert [line.rsplit(" ", 1)[1] for line in lines if "refused" in line] == ["Throttled", "InvalidPayload"]


def test_the_checker_refuses_what_the_service_would() -> None:
    good = {"header": {"report_id": 1, "version": "1.0"}}
    hold(good)
    for bad in (
        {},
        {"header": {"report_id": "1", "version": "1.0"}},
        {**good, "custom_metrics": {"a": {"number": 1}}},
        {**good, "metrics": {"network_stats": {"bytes_in": -1, "bytes_out": 0, "packets_in": 0, "packets_out": 0}}},
        {**good, "met": {}},
    ):
        with pytest.raises((AssertionError, KeyError)):
            hold(bad)


class Board:
    """A port as boards have it: no standard metrics, a boot that is counted."""

    def memory(self) -> dict[str, int]:
        return {"free": 40000, "flash_free": 500000, "rssi": -61}

    def boot_id(self) -> str:
        return "boot-17"


class BoardAgent:
    counters = {"connects": 4}
    port = Board()

    def __init__(self, defender: dict[str, Any]) -> None:
        self.config = self
        self.defender = defender
        self.services: list[Any] = []
        self.attributes = self

    def full(self) -> dict[str, Any]:
        return {"engineStarts": 21000, "site": "berlin", "ok": True}


def test_a_board_reports_memory_resets_and_counters() -> None:
    report = Part(BoardAgent({"interval": 300})).report()
    hold(report)
    assert report["custom_metrics"] == {
        "memory_free": [{"number": 40000}],
        "memory_flash_free": [{"number": 500000}],
        "memory_rssi": [{"number": -61}],
        "connects": [{"number": 4}],
        "boots": [{"number": 17}],
    }


def test_named_metrics_may_be_attributes() -> None:
    report = Part(BoardAgent({"metrics": ["boots", "engineStarts", "site", "ok", "absent"]})).report()
    hold(report)
    assert report["custom_metrics"] == {
        "boots": [{"number": 17}],
        "engineStarts": [{"number": 21000}],
        "site": [{"string_list": ["berlin"]}],
    }


def test_report_ids_rise_even_if_the_clock_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(BoardAgent({"interval": 300}))
    times = iter([1000, 1000, 900, 2000])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    assert [part.report()["header"]["report_id"] for _ in range(4)] == [1000, 1001, 1002, 2000]


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ([], "defender"),
        ({"interval": 299}, "defender.interval"),
        ({"interval": True}, "defender.interval"),
        ({"interval": 86401}, "defender.interval"),
        ({"metrics": "all"}, "defender.metrics"),
        ({"metrics": [1]}, "defender.metrics"),
        ({"metric": []}, "defender.metric"),
    ],
)
def test_wrong_configuration_is_refused_by_name(data: Any, member: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(member)):
        check(data)


PROC = {
    "tcp": "  sl  local_address rem_address   st\n"
    "   0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 1\n"
    "   1: 0500A8C0:9C40 0A00000A:22B3 01 0 0 0 0 0 2\n"
    "   2: 0500A8C0:9C41 0A00000A:22B3 06 0 0 0 0 0 3\n",
    "tcp6": "  sl  local_address rem_address st\n"
    "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0 0\n"
    "   1: 0000000000000000FFFF00000500A8C0:9C42 0000000000000000FFFF00000A00000A:01BB 01 0 0\n"
    "   2: B80D01200000000000000000"
    "01000000:9C43 B80D0120000000000000000002000000:01BB 01 0 0\n",
    "udp": "  sl  local_address rem_address st\n   0: 00000000:0044 00000000:0000 07 0 0\n",
    "dev": "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n"
    "    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n"
    "  eth0: %d 20 0 0 0 0 0 0 3000 40 0 0 0 0 0 0\n"
    " wlan0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n",
}


def test_proc_is_read_as_proc_5_says(tmp_path: Path) -> None:
    net = tmp_path / "net"
    net.mkdir()
    for name, text in PROC.items():
        (net / name).write_text(text % 1000 if name == "dev" else text)
    metrics = Metrics(tmp_path)
    (net / "dev").write_text(PROC["dev"] % 1234)
    found = metrics.read()
    hold({"header": {"report_id": 1, "version": "1.0"}, "metrics": found})
    assert found["listening_tcp_ports"] == {"ports": [{"port": 22}, {"port": 8080}], "total": 2}
    assert found["listening_udp_ports"] == {"ports": [{"port": 68}], "total": 1}
    assert found["network_stats"] == {"bytes_in": 234, "bytes_out": 0, "packets_in": 0, "packets_out": 0}
    assert found["tcp_connections"]["established_connections"] == {
        "connections": [
            {"local_port": 40000, "remote_addr": "10.0.0.10:8883"},
            {"local_port": 40002, "remote_addr": "10.0.0.10:443"},
            {"local_port": 40003, "remote_addr": "[2001:db8::2]:443"},
        ],
        "total": 3,
    }
    assert metrics.read()["network_stats"]["bytes_in"] == 0, "added since the last report"


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    rows = [f"   {n}: 00000000:{n + 1:04X} 00000000:0000 0A 0\n" for n in range(1000)]
    (tmp_path / "net" / "tcp").write_text("head\n" + "".join(rows))
    block = Metrics(tmp_path).read()["listening_tcp_ports"]
    assert (len(block["ports"]), block["total"]) == (200, 1000)


def test_this_host_is_readable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        ports = Metrics().read()["listening_tcp_ports"]["ports"]
        assert {"port": probe.getsockname()[1]} in ports

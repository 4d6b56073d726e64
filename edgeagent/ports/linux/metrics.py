# SPDX-License-Identifier: Apache-2.0
"""Device Defender's standard metrics of a Linux host, from /proc. Source: aws-iot-protocol.md section 11; proc(5)."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

_LISTED = 200  # ports or connections named in one report; `total` counts them all
_ESTABLISHED, _LISTEN = "01", "0A"
_BOUND = "07"  # what proc(5) shows of a UDP socket that is not connected
_COUNTERS = ("bytes_in", "packets_in", "bytes_out", "packets_out")


def _address(text: str) -> tuple[str, int]:
    """(address, port) of a column of /proc/net/tcp: words of the address are in the byte order of the host."""
    address, _, port = text.partition(":")
    data = bytes.fromhex(address)
    words = struct.unpack(f"={len(data) // 4}I", data)
    packed = struct.pack(f"!{len(words)}I", *words)
    if len(packed) == 16:
        if packed[:12] == bytes(10) + b"\xff\xff":  # IPv4 on a socket of both families
            return socket.inet_ntop(socket.AF_INET, packed[12:]), int(port, 16)
        return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]", int(port, 16)
    return socket.inet_ntop(socket.AF_INET, packed), int(port, 16)


class Metrics:
    """Counters of network_stats are what was added since the report before (or since this object was made)."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._net = proc / "net"
        self._base = self._counters()

    def read(self) -> dict[str, Any]:
        """The `metrics` block of a report. What /proc does not show is left out."""
        tcp = self._sockets("tcp")
        listening = sorted({local[1] for state, local, _ in tcp if state == _LISTEN})
        bound = sorted({local[1] for state, local, _ in self._sockets("udp") if state == _BOUND})
        open_ = [(local[1], f"{remote[0]}:{remote[1]}") for state, local, remote in tcp if state == _ESTABLISHED]
        connections = [{"local_port": port, "remote_addr": remote} for port, remote in open_[:_LISTED]]
        now = self._counters()
        # Counters of an interface that went away are missing, not negative.
        added = {name: max(0, now[name] - self._base[name]) for name in _COUNTERS}
        self._base = now
        return {
            "listening_tcp_ports": {"ports": [{"port": port} for port in listening[:_LISTED]], "total": len(listening)},
            "listening_udp_ports": {"ports": [{"port": port} for port in bound[:_LISTED]], "total": len(bound)},
            "network_stats": added,
            "tcp_connections": {"established_connections": {"connections": connections, "total": len(open_)}},
        }

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._net / name).read_text().splitlines()
        except OSError:
            return []

    def _sockets(self, kind: str) -> list[tuple[str, tuple[str, int], tuple[str, int]]]:
        """(state, local, remote) of each socket, both address families."""
        found = []
        for name in (kind, kind + "6"):
            for line in self._lines(name)[1:]:
                columns = line.split()
                found.append((columns[3], _address(columns[1]), _address(columns[2])))
        return found

    def _counters(self) -> dict[str, int]:
        total = dict.fromkeys(_COUNTERS, 0)
        for line in self._lines("dev")[2:]:
            name, _, rest = line.partition(":")
            columns = rest.split()
            if name.strip() != "lo" and len(columns) >= 10:
                for counter, column in zip(_COUNTERS, (0, 1, 8, 9), strict=True):
                    total[counter] += int(columns[column])
        return total

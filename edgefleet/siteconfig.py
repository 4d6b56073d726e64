# SPDX-License-Identifier: Apache-2.0
"""What a site is started with and what it answers; free of heavy imports, because every command loads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgefleet.errors import InputError

MQTT_PORT = 8883
API_PORT = 8443
MAX_OBJECT = 64 * 1024 * 1024  # bytes, default cap of an S3 upload
LOOPBACK = ("127.0.0.1", "localhost")
READY_FILE = "site.json"  # the last Ready, in the data folder, for commands on this machine
_HOST = re.compile(r"[A-Za-z0-9:]([A-Za-z0-9._:-]{0,252}[A-Za-z0-9])?")


@dataclass(frozen=True)
class SiteConfig:
    """data: folder of everything the site keeps. hosts: names and addresses by which devices and operators reach it,
    the first is the one given to them (the loopback ones are always valid too). bind: address to listen on.
    Ports: 0 takes any free one. max_object: bytes, cap of an S3 upload. Raises InputError naming the field.
    """

    data: Path
    hosts: tuple[str, ...] = LOOPBACK
    bind: str = "127.0.0.1"
    mqtt_port: int = MQTT_PORT
    api_port: int = API_PORT
    max_object: int = MAX_OBJECT

    def __post_init__(self) -> None:
        for name in ("mqtt_port", "api_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise InputError(f"{name}: must be 0 to 65535, not {getattr(self, name)}")
        if self.mqtt_port == self.api_port != 0:
            raise InputError(f"api_port: must differ from mqtt_port, both are {self.api_port}")
        if not self.hosts:
            raise InputError("hosts: name at least one")
        for host in (*self.hosts, self.bind):
            if not _HOST.fullmatch(host):
                raise InputError(f"host '{host[:80]}': is not a host name or IP address")
        if self.max_object < 1:
            raise InputError("max_object: must be positive")


@dataclass(frozen=True)
class Ready:
    """What users need next, once the site accepts connections. Paths are absolute."""

    endpoint: str
    mqtt_port: int
    api: str  # https://host:port
    data: str
    ca: str
    template: str
    claim_certificate: str
    claim_key: str
    profile: str
    aws_config: str
    aws_credentials: str

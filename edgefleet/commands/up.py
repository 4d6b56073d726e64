# SPDX-License-Identifier: Apache-2.0
"""`edgefleet up`: run a site until SIGTERM or SIGINT, and tell what a device or an operator needs to reach it."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefleet import client
from edgefleet.commands import output
from edgefleet.siteconfig import API_PORT, LOOPBACK, MQTT_PORT, Ready, SiteConfig


def add_commands(subparsers: Any) -> None:
    parser = subparsers.add_parser("up", help="run a site: broker, control plane, HTTP API")
    where = f"folder the site keeps all in (default: $EDGEFLEET_DATA or ./{client.DEFAULT_DATA})"
    parser.add_argument("--data", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=where)
    names = "name or address under which devices reach this machine; may be repeated, the first is given to devices"
    parser.add_argument("--host", action="append", metavar="NAME", help=f"{names} (default: only this machine)")
    address = "address to listen on (default: 127.0.0.1, or all if --host names other addresses)"
    parser.add_argument("--bind", metavar="ADDRESS", help=address)
    parser.add_argument("--mqtt-port", type=int, default=MQTT_PORT, help="(default %(default)s; 0: any)")
    parser.add_argument("--api-port", type=int, default=API_PORT, help="(default %(default)s; 0: any)")
    parser.add_argument("--json-ready", action="store_true", help="print one JSON line when ready, nothing else")
    parser.add_argument("--verbose", action="store_true", help="log refused connections and the like, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    hosts = tuple(args.host or LOOPBACK)
    bind = args.bind or ("127.0.0.1" if all(_is_loopback(host) for host in hosts) else "0.0.0.0")  # noqa: S104
    config = SiteConfig(
        data=client.data_folder(args.data),
        hosts=hosts,
        bind=bind,
        mqtt_port=args.mqtt_port,
        api_port=args.api_port,
    )
    asyncio.run(_serve(config, json_ready=args.json_ready))
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(config: SiteConfig, *, json_ready: bool) -> None:
    from edgefleet.site import Site  # the whole control plane, which no other command needs

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    site = Site(config)
    ready = await site.start()
    try:
        if json_ready:
            output.print_json_line(asdict(ready))
        else:
            _tell(ready, config)
        await stop.wait()
    finally:
        await site.stop()


def _tell(ready: Ready, config: SiteConfig) -> None:
    """What to do next, in commands that can be pasted."""
    data = Path(ready.data)
    lines = [
        f"edgefleet is up. Everything it keeps is in {data}",
        "",
        f"  devices     {ready.endpoint}:{ready.mqtt_port} (MQTT over mutual TLS)",
        f"  operators   {ready.api} (AWS IoT API)",
        f"  CA          {ready.ca}",
        f"  claim       {ready.claim_certificate}",
        f"              {ready.claim_key} (secret: it lets devices register)",
        "",
        "In another terminal:",
        "",
        f"  export EDGEFLEET_DATA={data}",
        "",
        "  # an ESP32 with MicroPython",
        "  edgefleet device prepare build/dev1 --board ESP32_GENERIC --serial dev1",
        "  mpremote cp -r build/dev1/. : + reset",
        "",
        "  # a Raspberry Pi (pip install 'edgeagent[linux]' there; copy the folder over)",
        "  edgefleet device prepare pi1 --board linux --serial pi1",
        "  edgeagent run --config pi1/agent.json",
        "",
        "  # operate",
        "  edgefleet things list",
        "  edgefleet job create reboot-1 --operation reboot --target thing/dev1",
        "",
        "  # AWS's own tools",
        f"  export AWS_CONFIG_FILE={ready.aws_config} AWS_SHARED_CREDENTIALS_FILE={ready.aws_credentials}",
        f"  export AWS_CA_BUNDLE={ready.ca}  # the profile names it too, but a value already set would win",
        f"  aws --profile {ready.profile} iot list-things",
        "",
    ]
    if config.bind.startswith("127."):
        lines += ["Only this machine can connect; `--host ADDRESS` opens the site to others.", ""]
    output.say("\n".join([*lines, "Ctrl-C stops it."]))

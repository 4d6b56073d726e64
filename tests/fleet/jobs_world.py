# SPDX-License-Identifier: Apache-2.0
"""A small world for the tests of jobs: a store, things, and devices that ask by MQTT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgefleet import names
from edgefleet.jobs import creation, device_plane, lifecycle, rollout
from edgefleet.jobs.records import Context
from edgefleet.messages import Message, Request
from edgefleet.registry import things
from edgefleet.store import Store

DOCUMENT = '{"operation":"reboot","none":null}'


class World:
    """Time stands still unless a test moves `now`. Every call is one transaction; `sent` are its messages."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        self.store = Store(folder / "fleet.db")
        self.now = 1_700_000_000
        self.sent: list[Message] = []
        self.things = [f"t{n}" for n in range(1, count + 1)]
        with self.store.transaction() as tx:
            for name in self.things:
                things.create(tx, name)

    def do(self, work: Any) -> Any:
        """Run `work(tx, context)` and keep what it sends."""
        with self.store.transaction() as tx:
            result = work(tx, Context(self.now))
        self.sent = [message for message in tx.outgoing if isinstance(message, Message)]
        return result

    def create(self, job_id: str, thing_names: list[str] | None = None, **options: Any) -> None:
        members = {
            "targets": [names.arn(f"thing/{name}") for name in thing_names or self.things],
            "document": DOCUMENT,
            "document_source": None,
            "target_selection": "SNAPSHOT",
            "description": None,
            "presigned_config": None,
            "timeout_config": None,
            "abort_config": None,
            "rollout_config": None,
            "retry_config": None,
            **options,
        }
        self.do(lambda tx, context: creation.create(tx, context, job_id, **members))

    def cancel(self, job_id: str, force: bool = False) -> None:
        self.do(lambda tx, context: lifecycle.cancel(tx, context, job_id, force=force))

    def delete(self, job_id: str, force: bool = True) -> None:
        self.do(lambda tx, context: lifecycle.delete(tx, context, job_id, force=force))

    def tick(self, seconds: int = 0) -> None:
        self.now += seconds
        self.do(lambda tx, context: rollout.tick(tx, context.now))

    def ask(self, rest: str, body: Any = b"", thing: str = "t1") -> tuple[str, dict[str, Any]]:
        """Publish on `…/jobs/{rest}`; returns ("accepted" | "rejected", the answer)."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"$aws/things/{thing}/jobs/{rest}", payload, thing, "cert")
        assert self.do(lambda tx, context: device_plane.handle(tx, request, context))
        (reply,) = [message for message in self.sent if message.to_requester]
        assert self.sent[0] is reply
        topic, outcome = reply.topic.rsplit("/", 1)
        assert topic == request.topic
        return outcome, json.loads(reply.payload)

    def notified(self, thing: str = "t1") -> list[tuple[str, dict[str, Any]]]:
        """("notify" | "notify-next", message) of the last call, in order."""
        head = f"$aws/things/{thing}/jobs/"
        return [
            (message.topic[len(head) :], json.loads(message.payload))
            for message in self.sent
            if message.topic in (head + "notify", head + "notify-next")
        ]

    def events(self) -> list[str]:
        return [message.topic[len("$aws/events/") :] for message in self.sent if message.topic.startswith("$aws/ev")]

    def value(self, sql: str, *parameters: Any) -> Any:
        with self.store.reading() as tx:
            return tx.value(sql, parameters)

    def status(self, job_id: str) -> str:
        return str(self.value("SELECT status FROM jobs WHERE job_id = ?", job_id))

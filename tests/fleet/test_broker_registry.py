# SPDX-License-Identifier: Apache-2.0
"""The broker with the registry's own authorizer: certificates and policies decide, and changes act on live sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgefleet import names
from edgefleet.broker import Broker
from edgefleet.registry import certificates, policies, things
from edgefleet.registry.authorizer import RegistryAuthorizer
from edgefleet.store import Store, Tx
from tests.fleet.broker_support import Peer, run, yard

OWN = "${iot:Connection.Thing.ThingName}"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": names.arn(f"client/{OWN}")},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": names.arn(f"topic/{OWN}/*")},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": names.arn(f"topicfilter/{OWN}/*")},
    ],
}


class Registered:
    """A broker on a registry with two things, `one` and `two`, each with its certificate under one policy."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "fleet.db")
        self.authorizer = RegistryAuthorizer(self.store)
        self.broker = Broker(self.store, self.authorizer, lambda request, connection: None)
        self.port = 0
        self.commit(self._fill)

    def _fill(self, tx: Tx) -> None:
        policies.create(tx, "own", json.dumps(POLICY))
        for name in ("one", "two"):
            things.create(tx, name)
            pem = yard().credentials(name).cert_path.read_text()
            certificate_id = certificates.register(tx, pem, "ACTIVE")
            certificates.attach(tx, name, certificate_id)
            policies.attach(tx, "own", policies.parse_target(names.arn(f"cert/{certificate_id}")))

    def commit(self, work: Callable[[Tx], Any]) -> None:
        with self.store.transaction() as tx:
            work(tx)
        if tx.policies_changed:
            self.authorizer.forget()
        self.broker.deliver(tx.outgoing)

    async def start(self) -> None:
        self.port = await self.broker.start("127.0.0.1", 0, yard().server_context)

    async def stop(self) -> None:
        await self.broker.stop()
        self.store.close()

    async def peer(self, name: str, client_id: str | None = None, code: int = 0) -> Peer:
        context = yard().credentials(name).context
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context))
        assert await peer.connect(client_id or name) == (False, code)
        return peer


def with_registry(tmp_path: Path, scenario: Callable[[Registered], Any]) -> None:
    async def bounded() -> None:
        here = Registered(tmp_path)
        await here.start()
        try:
            await scenario(here)
        finally:
            await here.stop()

    run(bounded())


def test_things_are_isolated_by_a_policy_with_variables(tmp_path: Path) -> None:
    async def scenario(here: Registered) -> None:
        two = await here.peer("two")
        await two.subscribe("two/#")
        one = await here.peer("one")
        await one.publish("one/x")
        with pytest.raises(ConnectionError):
            await one.publish("two/x", b"evil")
        await two.publish("two/marker")
        assert (await two.next()).topic == "two/marker"
        await here.peer("one", "two", code=5)

    with_registry(tmp_path, scenario)


def test_inactive_certificate_is_cut_off_and_stays_out(tmp_path: Path) -> None:
    async def scenario(here: Registered) -> None:
        one = await here.peer("one")
        certificate_id = yard().credentials("one").certificate_id
        here.commit(lambda tx: certificates.set_status(tx, certificate_id, "INACTIVE"))
        await one.closed()
        await here.peer("one", code=5)
        here.commit(lambda tx: certificates.set_status(tx, certificate_id, "ACTIVE"))
        await here.peer("one")

    with_registry(tmp_path, scenario)


def test_policy_change_acts_on_a_live_connection(tmp_path: Path) -> None:
    async def scenario(here: Registered) -> None:
        one = await here.peer("one")
        await one.publish("one/x")
        target = policies.parse_target(names.arn(f"cert/{yard().credentials('one').certificate_id}"))
        here.commit(lambda tx: policies.detach(tx, "own", target))
        with pytest.raises(ConnectionError):
            await one.publish("one/x")

    with_registry(tmp_path, scenario)

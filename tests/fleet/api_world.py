# SPDX-License-Identifier: Apache-2.0
"""The HTTP front on real TLS and uvicorn, with an object store and the operations a test gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from edgefleet.api.front import Front
from edgefleet.api.model import Model
from edgefleet.api.s3 import S3
from edgefleet.api.server import HttpsServer, bind
from edgefleet.api.sigv4 import Verifier
from edgefleet.artifacts.objects import Objects
from edgefleet.pki import Authority
from edgefleet.store import Store, Tx
from tests.fleet.loop_thread import LoopThread

KEY, SECRET = "EFLTTESTTESTTESTTEST", "secret/secret+secret"
MODEL = Model()


class ApiWorld:
    def __init__(self, folder: Path, operations: Mapping[str, Sequence[object]], max_object: int = 1_000_000) -> None:
        self.objects = Objects(folder / "objects")
        authority = Authority.load_or_create(folder / "pki")
        self.ca = folder / "pki" / "ca.pem"
        certificate, key = authority.issue_server(["127.0.0.1"])
        (folder / "certificate.pem").write_text(certificate)
        (folder / "key.pem").write_text(key)
        listener = bind("127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        self.verifier = Verifier({KEY: SECRET}, self.url)
        self.loop = LoopThread()
        self.store = self.loop.call(Store, folder / "fleet.db")
        self.outgoing: list[Any] = []
        front = Front(MODEL, self.verifier, operations, self._commit, S3(self.objects, max_object))
        self.server = HttpsServer(front, folder / "certificate.pem", folder / "key.pem")
        self.loop.run(self.server.start(listener))

    def _commit(self, work: Any) -> Any:
        with self.store.transaction() as tx:
            result = work(tx)
        self.outgoing += tx.outgoing
        return result

    def client(self, service: str, key: str = KEY, secret: str = SECRET, **config: Any) -> Any:
        settings: dict[str, Any] = {
            "retries": {"total_max_attempts": 1},
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **config,
        }
        session: Any = boto3.Session(
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="local-1",
            botocore_session=botocore.session.Session(),
        )
        return session.client(service, endpoint_url=self.url, verify=str(self.ca), config=Config(**settings))

    def close(self) -> None:
        self.loop.run(self.server.stop())
        self.loop.call(self.store.close)
        self.loop.close()


class Echo:
    """Operations that show what reached them. Used where the front is the subject, not a domain."""

    def describe_thing(self, tx: Tx, *, thingName: str) -> dict[str, Any]:
        return {"thingName": thingName}

    def get_policy(self, tx: Tx, *, policyName: str) -> dict[str, Any]:
        return {"policyName": policyName}

    def list_things(self, tx: Tx, *, maxResults: int = 0, attributeValue: str = "") -> dict[str, Any]:
        return {"things": [{"thingName": str(maxResults), "attributes": {"value": attributeValue}}]}

    def delete_thing(self, tx: Tx, *, thingName: str) -> None:
        tx.execute("CREATE TABLE half_done (x)")
        tx.publish("edge/x", {})
        raise RuntimeError("a fault of ours")

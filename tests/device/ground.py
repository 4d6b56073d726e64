# SPDX-License-Identifier: Apache-2.0
"""The parts of a real site that an agent meets (broker, policies, jobs, shadow, uploads), in the loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeagent import topics
from edgefleet import names, pki
from edgefleet.artifacts.objects import Objects
from edgefleet.artifacts.uploads import BUCKET, Uploads
from edgefleet.broker import Broker, ConnectionRef
from edgefleet.control import ControlPlane
from edgefleet.jobs import device_plane as jobs_plane
from edgefleet.jobs import rollout
from edgefleet.jobs.operations import JobOperations
from edgefleet.messages import Request
from edgefleet.registry import certificates, policies, things
from edgefleet.registry.authorizer import RegistryAuthorizer
from edgefleet.shadow import device_plane as shadow_plane
from edgefleet.shadow import service as shadows
from edgefleet.store import Store, Tx

T = TypeVar("T")
WAIT_S = 15.0
POLICY = "device"


def _policy() -> dict[str, Any]:
    own = "${iot:Connection.Thing.ThingName}"
    spaces = [f"{topics.THINGS}{own}/*", f"$aws/rules/{topics.UPLOAD_RULE}/{own}/*"]
    resources = [names.arn(f"{kind}/{space}") for kind in ("topic", "topicfilter") for space in spaces]
    actions = ["iot:Publish", "iot:Receive", "iot:Subscribe"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": names.arn(f"client/{own}")},
            {"Effect": "Allow", "Action": actions, "Resource": resources},
        ],
    }


class Ground:
    """Use: `async with ground(folder) as site`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = pki.Authority.load_or_create(folder / "pki")
        self.ca = folder / "pki" / "ca.pem"
        self.store = Store(folder / "fleet.db")
        self.objects = Objects(folder / "objects")
        self.authorizer = RegistryAuthorizer(self.store)
        self.jobs = JobOperations(self.objects)
        planes = [shadow_plane.handle, jobs_plane.handle, Uploads(self.objects).handle]
        self._control = ControlPlane(planes)
        self.requests: list[str] = []
        self.port = 0
        self._broker: Broker | None = None
        self.commit(lambda tx: policies.create(tx, POLICY, json.dumps(_policy())), quiet=True)

    async def start(self) -> None:
        """Listen; after `stop`, on the same port as before."""
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        if not certificate.exists():
            pems = self.authority.issue_server(["127.0.0.1", "localhost"])
            certificate.write_text(pems[0])
            key.write_text(pems[1])
        self._broker = Broker(self.store, self.authorizer, self._reserved)
        context = pki.server_context(certificate, key, self.ca)
        self.port = await self._broker.start("127.0.0.1", self.port, context)

    async def stop(self) -> None:
        assert self._broker is not None
        await self._broker.stop()
        self._broker = None

    def commit(self, work: Callable[[Tx], T], requester: ConnectionRef | None = None, quiet: bool = False) -> T:
        with self.store.transaction() as tx:
            result = work(tx)
        if not quiet:
            assert self._broker is not None
            self._broker.deliver(tx.outgoing, requester)
        return result

    def _reserved(self, request: Request, connection: ConnectionRef) -> None:
        self.requests.append(request.topic)
        self.commit(lambda tx: self._control.handle(tx, request), connection)

    def enroll(self, thing: str, folder: Path) -> dict[str, Any]:
        """Register a thing with a certificate; returns the members of its agent.json."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = self.authority.issue_device()
        assert key is not None
        (folder / "cert.pem").write_text(certificate)
        (folder / "key.pem").write_text(key)

        def work(tx: Tx) -> None:
            things.create(tx, thing)
            identity = certificates.register(tx, certificate, "ACTIVE")
            certificates.attach(tx, thing, identity)
            target = policies.parse_target(names.arn(f"cert/{identity}"))
            policies.attach(tx, POLICY, target)

        self.commit(work)
        return {
            "endpoint": "127.0.0.1",
            "port": self.port,
            "ca": str(self.ca),
            "thing_name": thing,
            "certificate": str(folder / "cert.pem"),
            "key": str(folder / "key.pem"),
            "state_dir": str(folder / "state"),
            "slots_dir": str(folder / "slots"),
        }

    def job(self, job_id: str, thing: str, document: dict[str, Any]) -> None:
        def work(tx: Tx) -> None:
            self.jobs.create_job(tx, jobId=job_id, targets=[names.arn(f"thing/{thing}")], document=json.dumps(document))
            rollout.tick(tx, time.time())

        self.commit(work)

    def cancel(self, job_id: str) -> None:
        self.commit(lambda tx: self.jobs.cancel_job(tx, jobId=job_id, force=True))

    def execution(self, job_id: str, thing: str) -> tuple[str, dict[str, str]]:
        """(status, statusDetails)."""
        with self.store.reading() as tx:
            found = self.jobs.describe_job_execution(tx, jobId=job_id, thingName=thing)["execution"]
        return found["status"], found["statusDetails"]["detailsMap"]

    def reported(self, thing: str) -> dict[str, Any]:
        with self.store.reading() as tx:
            shadow = shadows.find(tx, thing, None)
        return {} if shadow is None else dict(shadow.state.get("reported") or {})

    def bundle(self, thing: str, job_id: str) -> bytes:
        keys = [key for key, _, _ in self.objects.list(BUCKET) if thing in key and job_id in key]
        assert len(keys) == 1, keys
        return self.objects.get(BUCKET, keys[0])

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}; requests: {self.requests[-20:]}"
            await asyncio.sleep(0.01)

    async def outcome(self, job_id: str, thing: str) -> tuple[str, dict[str, str]]:
        open_ = ("QUEUED", "IN_PROGRESS")
        await self.until(lambda: self.execution(job_id, thing)[0] not in open_, f"{job_id} on {thing}")
        return self.execution(job_id, thing)


@contextlib.asynccontextmanager
async def ground(folder: Path) -> AsyncIterator[Ground]:
    site = Ground(folder)
    await site.start()
    try:
        yield site
    finally:
        if site._broker is not None:
            await site.stop()
        site.store.close()

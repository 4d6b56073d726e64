# SPDX-License-Identifier: Apache-2.0
"""A site: one process with its broker, control plane and HTTP API on one data folder. The composition root.

Everything runs on the thread of one event loop. A request, whether over MQTT or HTTP, is one transaction; what it
queued is sent after the commit (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edgefleet import bootstrap, pki
from edgefleet.api.front import Front
from edgefleet.api.model import Model
from edgefleet.api.s3 import S3
from edgefleet.api.server import HttpsServer, bind
from edgefleet.api.sigv4 import Verifier
from edgefleet.artifacts.objects import Objects
from edgefleet.artifacts.uploads import Uploads
from edgefleet.broker import Broker, ConnectionRef
from edgefleet.control import ControlPlane
from edgefleet.errors import InputError
from edgefleet.index import Index
from edgefleet.index.operations import IndexOperations
from edgefleet.jobs import device_plane as jobs_plane
from edgefleet.jobs import lifecycle, rollout
from edgefleet.jobs.operations import JobOperations, JobsDataOperations
from edgefleet.messages import Request
from edgefleet.provisioning import ownership
from edgefleet.provisioning.bulk import BulkTasks
from edgefleet.provisioning.device_plane import ClaimProvisioning
from edgefleet.provisioning.operations import ProvisioningOperations
from edgefleet.registry.authorizer import RegistryAuthorizer
from edgefleet.registry.operations import RegistryOperations
from edgefleet.shadow import device_plane as shadow_plane
from edgefleet.shadow.operations import DataOperations
from edgefleet.siteconfig import LOOPBACK, MQTT_PORT, READY_FILE, Ready, SiteConfig
from edgefleet.store import Store, Tx
from edgefleet.streams.device_plane import StreamsPlane
from edgefleet.streams.operations import StreamOperations

__all__ = ["Ready", "Site", "SiteConfig"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_REPORT_LINK_S = 3600  # how long the links of ListThingRegistrationTaskReports work
_TICK_S = 1.0
_BULK_POLL_S = 0.2  # how soon a new bulk registration task is begun


class Site:
    """Example:
    site = Site(SiteConfig(Path("edgefleet-data")))
    ready = await site.start()
    ...
    await site.stop()
    """

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Ready:
        """Come up completely, or raise InputError (folder in use, port taken, damaged file), all stopped again."""
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> Ready:
        config = self.config
        data = config.data.resolve()
        self._lock(data)
        self._authority = pki.Authority.load_or_create(data / "pki")
        hosts = list(dict.fromkeys((*config.hosts, *LOOPBACK)))
        certificate, key = bootstrap.server_certificate(self._authority, data / "server", hosts)
        keys = bootstrap.operator_keys(data / "aws")
        try:
            self.store = Store(data / "fleet.db")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{data / 'fleet.db'}: {error}") from None
        self._stack.callback(self.store.close)
        self.objects = Objects(data / "objects")
        self.authorizer = RegistryAuthorizer(self.store)
        self.broker = Broker(self.store, self.authorizer, self._reserved)
        self._stack.push_async_callback(self.broker.stop)

        endpoint = config.hosts[0]
        with _port_errors(config.bind, config.api_port):
            listener = bind(config.bind, config.api_port)
        self._stack.callback(listener.close)
        api = f"https://{f'[{endpoint}]' if ':' in endpoint else endpoint}:{listener.getsockname()[1]}"
        context = pki.server_context(certificate, key, data / "pki" / "ca.pem")
        verifier = Verifier(keys, api)
        self._presign = verifier.presign
        with _port_errors(config.bind, config.mqtt_port):
            mqtt_port = config.mqtt_port or _free_port(config.bind)
        described = endpoint if mqtt_port == MQTT_PORT else f"{endpoint}:{mqtt_port}"  # section 2.1
        self._compose(verifier, described, data / "claim")
        with _port_errors(config.bind, mqtt_port):
            await self.broker.start(config.bind, mqtt_port, context)
        server = HttpsServer(self._front, certificate, key)
        self._stack.push_async_callback(server.stop)
        await server.start(listener)
        bootstrap.write_profile(data / "aws", api, data / "pki" / "ca.pem")
        self._tasks = [
            asyncio.create_task(self._forever(self._tick, _TICK_S), name="ticker"),
            asyncio.create_task(self._forever(self._bulk_steps, _BULK_POLL_S), name="bulk"),
        ]
        ready = Ready(
            endpoint=endpoint,
            mqtt_port=mqtt_port,
            api=api,
            data=str(data),
            ca=str(data / "pki" / "ca.pem"),
            template=bootstrap.TEMPLATE,
            claim_certificate=str(data / "claim" / "certificate.pem"),
            claim_key=str(data / "claim" / "key.pem"),
            profile=bootstrap.PROFILE,
            aws_config=str(data / "aws" / "config"),
            aws_credentials=str(data / "aws" / "credentials"),
        )
        bootstrap.write_private(data / READY_FILE, json.dumps(asdict(ready), indent=1) + "\n")
        return ready

    def _compose(self, verifier: Verifier, endpoint: str, claim_folder: Path) -> None:
        """The domains, wired to each other and to the two fronts."""
        index = Index()
        self.store.before_commit += [lifecycle.forget_deleted, lambda tx: index.refresh(tx, tx.touched)]
        self._bulk = BulkTasks(
            self.objects, self._authority, lambda bucket, key: self._presign(bucket, key, _REPORT_LINK_S)
        )
        registry = RegistryOperations(self._authority, endpoint)
        provisioning = ProvisioningOperations(self._authority, self._bulk)
        self.operations: dict[str, list[object]] = {
            "iot": [
                registry,
                provisioning,
                JobOperations(self.objects, self._presign),
                StreamOperations(self.objects),
                IndexOperations(index),
            ],
            "iotdata": [DataOperations()],
            "iot-jobs-data": [JobsDataOperations(self._presign)],
        }
        self.control = ControlPlane(
            [
                shadow_plane.handle,
                lambda tx, request: jobs_plane.handle(tx, request, presign=self._presign),
                StreamsPlane(self.objects).handle,
                ClaimProvisioning(self._authority).handle,
                Uploads(self.objects).handle,
            ]
        )
        self.commit(lambda tx: bootstrap.defaults(tx, registry, provisioning, claim_folder))
        s3 = S3(self.objects, self.config.max_object)
        self._front = Front(Model(), verifier, self.operations, self.commit, s3)

    async def stop(self) -> None:
        """Stop accepting, finish what is under way, close everything. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._stack.aclose()

    def commit(self, work: Callable[[Tx], T], requester: ConnectionRef | None = None) -> T:
        """Run `work` in one durable transaction, then send what it queued. An exception undoes and sends nothing."""
        with self.store.transaction() as tx:
            result = work(tx)
        if tx.policies_changed:
            self.authorizer.forget()
        self.broker.deliver(tx.outgoing, requester)
        return result

    def _reserved(self, request: Request, connection: ConnectionRef) -> None:
        """A device request. If the store fails the exception goes on: the broker then does not acknowledge."""
        try:
            self.commit(lambda tx: self.control.handle(tx, request), connection)
        except sqlite3.Error:
            raise
        except Exception:
            # A fault of ours, and no better at a second try: acknowledged, or the device would send it forever.
            log.exception("the request of %s on %s failed", request.client_id, request.topic)

    async def _forever(self, work: Callable[[], Coroutine[Any, Any, None]], pause_s: float) -> None:
        while True:
            try:
                await work()
            except Exception:
                log.exception("%s failed and is tried again", work.__name__)
            await asyncio.sleep(pause_s)

    async def _tick(self) -> None:
        """What happens by time alone: rollouts, time-outs, certificates that nobody came for."""

        def work(tx: Tx) -> None:
            rollout.tick(tx, time.time(), self._presign)
            ownership.expire(tx)

        self.commit(work)

    async def _bulk_steps(self) -> None:
        """Bulk registration until nothing is left, in chunks between which devices and operators get their turn."""
        while self.commit(self._bulk.step):  # noqa: ASYNC110 - not a wait: it is the others' turn
            await asyncio.sleep(0)

    def _lock(self, data: Path) -> None:
        """One process a data folder. The lock goes with the process, however it ends."""
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InputError(f"{data}: cannot be used as data folder: {error.strerror}") from None
        self._stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{data}: is in use by another edgefleet process") from None


def _free_port(host: str) -> int:
    """A port that is free now: the control plane is told the port before the broker listens on it."""
    with bind(host, 0) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _port_errors(host: str, port: int) -> Any:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None

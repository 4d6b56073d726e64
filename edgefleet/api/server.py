# SPDX-License-Identifier: Apache-2.0
"""uvicorn as a part of a larger program: sockets bound by us, no signal handlers of its own, an awaited start."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn

_BACKLOG = 256
_CONNECTIONS = 512  # beyond it clients get 503 and come back
_GRACE_S = 1  # requests under way may finish at a stop
_KEEP_ALIVE_S = 30


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the program's business."""
        yield


class HttpsServer:
    """Serves an ASGI application over TLS on one address."""

    def __init__(self, app: Any, certificate: Path, key: Path) -> None:
        self._config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket, which is taken over. Returns when connections are accepted."""
        self._server = _Server(self._config)
        listener.listen(_BACKLOG)
        self._task = asyncio.create_task(self._server.serve([listener]), name="https")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError("the HTTPS server ended while it was starting")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop accepting, let requests under way finish within a few seconds. Idempotent."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            # An idle client that keeps its connection open would not answer the TLS goodbye: do not wait for it.
            cycle = getattr(connection, "cycle", None)
            if cycle is None or cycle.response_complete:
                connection.transport.abort()
        await self._task
        self._server = self._task = None


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to `host` and `port` (0: any free one). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener

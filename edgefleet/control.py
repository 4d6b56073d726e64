# SPDX-License-Identifier: Apache-2.0
"""Device requests on reserved topics, handed to the domain that owns the topic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from edgefleet.messages import Request
from edgefleet.store import Tx

log = logging.getLogger(__name__)

Plane = Callable[[Tx, Request], bool]  # True: the topic was its own


class ControlPlane:
    """`planes`: asked in order; the first that owns the topic answers, by what it queues on the transaction."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes = tuple(planes)

    def handle(self, tx: Tx, request: Request) -> None:
        """A topic that nobody owns gets no answer, as with the service; the log says so."""
        for plane in self._planes:
            if plane(tx, request):
                return
        log.info("nobody answers %s (from client %s)", request.topic, request.client_id)

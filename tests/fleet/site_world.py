# SPDX-License-Identifier: Apache-2.0
"""A whole site inside the test's process, on free ports, with boto3 clients of its generated profile."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgefleet import client
from edgefleet.site import Ready, Site, SiteConfig
from tests.fleet.loop_thread import LoopThread

T = TypeVar("T")


class SiteWorld:
    def __init__(self, data: Path, **config: Any) -> None:
        self.data = data
        self.loop = LoopThread()
        try:
            self.site, self.ready = self.loop.run(self._start(SiteConfig(data, mqtt_port=0, api_port=0, **config)))
        except BaseException:
            self.loop.close()
            raise

    @staticmethod
    async def _start(config: SiteConfig) -> tuple[Site, Ready]:
        site = Site(config)
        return site, await site.start()

    def client(self, service: str) -> Any:
        return client.connect(argparse.Namespace(data=self.data, profile=None, endpoint_url=None, region=None), service)

    def commit(self, work: Callable[[Any], T]) -> T:
        return self.loop.call(self.site.commit, work)

    def close(self) -> None:
        self.loop.run(self.site.stop())
        self.loop.close()

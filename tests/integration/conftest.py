# SPDX-License-Identifier: Apache-2.0
"""A real site: `edgefleet up` as its own process, on free ports, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.link import Link


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetManager]:
    manager = FleetManager(tmp_path_factory.mktemp("site") / "data")
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[FleetManager]:
    """One that a test may kill."""
    manager = FleetManager(tmp_path / "data")
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture(scope="module")
def judge(fleet: FleetManager) -> Judge:
    return Judge(fleet)


@pytest.fixture(scope="module")
def link(fleet: FleetManager) -> Iterator[Link]:
    """To the site's broker, for a board that is made with `link.through(fleet)`."""
    link = Link(fleet.ready["endpoint"], fleet.ready["mqtt_port"])
    yield link
    link.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path

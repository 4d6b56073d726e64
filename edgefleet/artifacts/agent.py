# SPDX-License-Identifier: Apache-2.0
"""The agent itself as an update artifact: the board files that `edgefleet device prepare` puts into /lib."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edgeagent
from edgefleet import devices
from edgefleet.artifacts.build import Artifact, build
from edgefleet.errors import InputError

NAME = "edgeagent"


def build_agent(
    boards: Sequence[str],
    *,
    name: str = NAME,
    version: str = edgeagent.__version__,
    optimise: int = devices.OPTIMISE,
    **options: Any,
) -> Artifact:
    """An unsigned artifact of type "agent".

    boards: as of `build`; the linked agent must be the same for all of them. version: what the agent says it is; only
    another one than this installation's needs it. optimise: as of devices.agent_bytecode. options: more of `build`.
    Raises InputError.
    """
    made = [devices.agent_bytecode(_name(board), optimise, version) for board in boards]
    if any(files != made[0] for files in made):
        raise InputError(f"--board {', '.join(boards)}: their agents differ; build one artifact for each")
    with tempfile.TemporaryDirectory() as folder:
        for path, data in made[0].items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return build(Path(folder), name=name, version=version, boards=boards, type="agent", **options)


def _name(board: str) -> str:
    """Of NAME@2-3; the agent for "*" has all ports."""
    return board.partition("@")[0].replace("*", "")

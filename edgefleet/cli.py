# SPDX-License-Identifier: Apache-2.0
"""`edgefleet`: run a site, and operate it (or AWS IoT) from the command line.

Everything but `up`, `device` and the offline `artifact` commands is boto3 underneath, so it works against AWS as well.
Exit codes: 0 done, 1 the service refused or a job failed, 2 wrong input (a line of a file too), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from edgefleet import __version__, client
from edgefleet.commands.output import complain
from edgefleet.errors import FleetError, InputError

_COMMANDS = (
    "edgefleet.commands.up",
    "edgefleet.commands.things",
    "edgefleet.commands.search",
    "edgefleet.commands.jobs",
    "edgefleet.commands.diagnostics",
    "edgefleet.commands.device",
    "edgefleet.artifacts.cli",
)
_WITHOUT_CONNECTION = ("up",)
_WRONG_INPUT = ("InvalidRequestException", "InvalidQueryException", "MalformedPolicyException", "ValidationException")


def parser() -> argparse.ArgumentParser:
    """The whole parser. Connection options are taken anywhere: before the command or after it."""
    top = argparse.ArgumentParser(prog="edgefleet", description="Run a site and operate its devices.")
    top.add_argument("--version", action="version", version=f"edgefleet {__version__}")
    top.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    client.add_arguments(top)
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    for name in _COMMANDS:
        import_module(name).add_commands(subparsers)
    for name, command in subparsers.choices.items():
        if name not in _WITHOUT_CONNECTION:
            for leaf in _leaves(command):
                client.add_arguments(leaf, argparse.SUPPRESS)
                leaf.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return top


def _leaves(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers below `command` that have no commands of their own."""
    nested = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield command
    for action in nested:
        for child in action.choices.values():
            yield from _leaves(child)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Never shows a traceback for what the operator or the service did."""
    arguments = parser().parse_args(argv)
    # Loaded here: `--help` and offline commands need no network library.
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (InputError, ParamValidationError) as error:
        complain(" ".join(str(error).split()))
        return 2
    except ClientError as error:
        details = error.response.get("Error", {})
        complain(f"{error.operation_name}: {details.get('Code', '?')}: {details.get('Message') or 'no message'}")
        return 2 if details.get("Code") in _WRONG_INPUT else 1
    except (FleetError, BotoCoreError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output is gone (`| head`); nothing is wrong, and nothing more can be said.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

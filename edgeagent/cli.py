# SPDX-License-Identifier: Apache-2.0
"""`edgeagent`: run, provision, examine an agent on this host (CPython only).

Exit status: 0 well, 1 something is wrong and one line says what, 2 the command line is wrong, 78 the configuration
is wrong, 75 start me again (`run`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from edgeagent import __version__, log
from edgeagent.config import Config, load
from edgeagent.errors import AgentError, ConfigError
from edgeagent.identity import Identity, known
from edgeagent.ports.linux import EXIT_CONFIG, LinuxPort, logs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. `arguments`: default sys.argv."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ConfigError as error:
        print(f"edgeagent: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except (AgentError, OSError) as error:
        print(f"edgeagent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeagent", description="The device agent on a Linux host.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", metavar="FILE", default="agent.json", help="default: agent.json")

    run = commands.add_parser("run", parents=[config], help="run the application of the active slot, or a bare agent")
    run.add_argument("--log", choices=logs.FORMATS, help="form of the log; default: journal under systemd, else text")
    run.add_argument("--supervise", action="store_true", help="restart it when it ends: for hosts without systemd")
    run.set_defaults(command=_run)
    provision = commands.add_parser("provision", parents=[config], help="get an identity by claim, if there is none")
    provision.set_defaults(command=_provision)
    status = commands.add_parser("status", parents=[config], help="identity, application slots, running job")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(command=_status)
    doctor = commands.add_parser("doctor", parents=[config], help="try everything up to the service; name what fails")
    doctor.add_argument("--json", action="store_true", help="one JSON object: steps, problem")
    doctor.set_defaults(command=_doctor)
    version = commands.add_parser("version", help="print the agent's version")
    version.set_defaults(command=lambda options: print(__version__) or 0)
    return parser


def _run(options: argparse.Namespace) -> int:
    from edgeagent.ports.linux import launcher, preflight

    form = options.log or logs.default()
    log.configure(sink=logs.sink(form))
    config = preflight.load(options.config)  # what is wrong is said once, here, and not by every child
    if not options.supervise:
        return launcher.run(options.config, config)
    from edgeagent.ports.linux.supervisor import Supervisor

    return Supervisor(launcher.module_command(options.config, form)).run()


def _known_identity(config: Config, port: LinuxPort) -> tuple[str, str, str] | None:
    return known(config, Identity(port.state_dir, port.pem).load())


def _provision(options: argparse.Namespace) -> int:
    from edgeagent.agent import Agent

    log.configure(sink=lambda line: print(line, file=sys.stderr))  # stdout is for the name alone
    config = load(options.config)
    identity = _known_identity(config, LinuxPort(config))
    print((identity or asyncio.run(Agent.from_file(options.config).identify()))[0])
    return 0


def status(config: Config) -> dict[str, Any]:
    """{"thing", "endpoint", "agent", "application": trial status, "job": journal record or None}. Changes nothing."""
    from edgeagent.jobs.journal import Journal
    from edgeagent.ota import trial

    port = LinuxPort(config)
    identity = _known_identity(config, port)
    job = Journal(port.state_dir + "/job.json").read()
    return {
        "thing": identity[0] if identity else None,
        "endpoint": f"{config.endpoint}:{config.port}",
        "agent": __version__,
        "application": trial.status(port.slots_dir),
        "job": {name: job[name] for name in ("jobId", "operation", "status")} if job else None,
    }


def _status(options: argparse.Namespace) -> int:
    found = status(load(options.config))
    if options.json:
        print(json.dumps(found))
        return 0
    application = found["application"]
    print(f"thing        {found['thing'] or 'not provisioned'}")
    print(f"endpoint     {found['endpoint']}")
    print(f"agent        {found['agent']}")
    print(f"application  {application['version'] or 'factory'}, update state {application['state']}")
    job = found["job"]
    print(f"job          {job['jobId']} ({job['operation']}), {job['status']}" if job else "job          none")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from edgeagent.ports.linux import doctor

    config = load(options.config)
    steps: list[str] = []
    problem = asyncio.run(doctor.examine(config, steps.append if options.json else lambda step: print(f"ok    {step}")))
    if options.json:
        print(json.dumps({"steps": steps, "problem": problem or None}))
    elif problem:
        print(f"FAIL  {problem}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())

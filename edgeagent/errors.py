# SPDX-License-Identifier: Apache-2.0
"""The few exceptions of the agent. Each carries facts; nothing from below (OSError, ValueError of TLS) leaks past
`ports/` or `mqtt/`.
"""

from edgeagent.compat import Any


class AgentError(Exception):
    """Base of everything the agent raises on purpose. `str(e)` is one line an operator can act on."""


class ConfigError(AgentError):
    """A configuration, identity or trust file is wrong. `field` names the member, with its file."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field + ": " + problem)
        self.field = field


class TransportError(AgentError):
    """The link failed: name resolution, TCP, TLS, or the MQTT session ended. Always worth a retry with back-off."""


class ProtocolError(AgentError):
    """The peer broke the protocol (MQTT 3.1.1, AWS IoT payload shapes). The connection is to be dropped."""


class Refused(AgentError):
    """The service answered a request with an error. `code` is the service's own code (aws-iot-protocol.md, C)."""

    def __init__(self, code: str, message: "str | None", body: "dict[str, Any] | None" = None) -> None:
        super().__init__("%s: %s" % (code, message))
        self.code = code
        self.body = body or {}


class JobFailed(AgentError):
    """A job that was started and did not succeed: reported FAILED with this reason."""

    status = "FAILED"

    def __init__(self, reason: str, details: "dict[str, Any] | None" = None) -> None:
        super().__init__(reason)
        self.details = details


class JobRejected(JobFailed):
    """A job that this device will not run: reported REJECTED with this reason."""

    status = "REJECTED"


class UpdateError(JobFailed):
    """An update was refused or went wrong. `code` is one word of docs/ota.md's table, first in the reason."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code + ": " + problem)
        self.code = code

# SPDX-License-Identifier: Apache-2.0
"""The few exceptions of the agent. Each carries facts; nothing from below (OSError, ValueError of TLS) leaks past
`ports/` or `mqtt/`.
"""

from edgeagent.compat import Any


class AgentError(Exception):
    """Base of everything the agent raises on purpose. `str(e)` is one line an operator can act on."""

    def __init__(self, code: str, problem: "str | None" = None, body: "dict[str, Any] | None" = None) -> None:
        """code: the text, or its first part, by which causes are told apart. body: of a refusal."""
        super().__init__("%s: %s" % (code, problem) if problem else code)
        self.code = code
        self.body = body or {}


class ConfigError(AgentError):
    """(member, problem): a configuration, identity or trust file is wrong. `code` names the member, with its file."""


class TransportError(AgentError):
    """The link failed: name resolution, TCP, TLS, or the MQTT session ended. Always worth a retry with back-off."""


class ProtocolError(AgentError):
    """The peer broke the protocol (MQTT 3.1.1, AWS IoT payload shapes). The connection is to be dropped."""


class Refused(AgentError):
    """(code, message, body): the service answered a request with an error. Codes: aws-iot-protocol.md, C."""


class JobFailed(AgentError):
    """A job that was started and did not succeed: reported FAILED with this reason, and `body` as its details."""

    status = "FAILED"

    def __init__(self, reason: str, details: "dict[str, Any] | None" = None) -> None:
        super().__init__(reason, None, details)


class JobRejected(JobFailed):
    """A job that this device will not run: reported REJECTED with this reason."""

    status = "REJECTED"


class UpdateError(JobFailed):
    """(code, problem): an update was refused or went wrong. `code` is one word of docs/ota.md's table."""

    __init__ = AgentError.__init__

# SPDX-License-Identifier: Apache-2.0
"""AWS IoT Jobs: documents, executions, rollout, abort, timeouts and retries (aws-iot-protocol.md sections 3 and 4)."""

# SPDX-License-Identifier: Apache-2.0
"""The embedded MQTT broker: AWS IoT's semantics on one SQLite store (aws-iot-protocol.md section 2)."""

from edgefleet.broker.authorizer import Authorizer, ConnectionRef, Denied, Principal
from edgefleet.broker.connection import ConnectionInfo
from edgefleet.broker.core import Broker
from edgefleet.broker.limits import Limits

__all__ = ["Authorizer", "Broker", "ConnectionInfo", "ConnectionRef", "Denied", "Limits", "Principal"]

# SPDX-License-Identifier: Apache-2.0
"""All HTTP operations of the registry in one object for the HTTP front (section 7)."""

from __future__ import annotations

from typing import Any

from edgefleet.errors import invalid
from edgefleet.pki import Authority
from edgefleet.registry.certificate_operations import CertificateOperations
from edgefleet.registry.group_operations import GroupOperations
from edgefleet.registry.policy_operations import PolicyOperations
from edgefleet.registry.thing_operations import ThingOperations
from edgefleet.store import Tx

# One endpoint serves all planes here; on AWS each of these is a host name of its own (sections 2.1, 2.10).
_ENDPOINT_TYPES = ("iot:Data-ATS", "iot:Data", "iot:Jobs", "iot:CredentialProvider")


class RegistryOperations(ThingOperations, GroupOperations, CertificateOperations, PolicyOperations):
    def __init__(self, authority: Authority, endpoint: str = "localhost", key_type: str = "ec") -> None:
        """endpoint: what DescribeEndpoint answers, the host (with `:port` if it is not 8883) devices connect to."""
        super().__init__(authority, key_type)
        self._endpoint = endpoint

    def describe_endpoint(self, tx: Tx, *, endpointType: str = "iot:Data") -> dict[str, Any]:
        if endpointType not in _ENDPOINT_TYPES:
            raise invalid(f"endpointType '{endpointType}': must be one of {', '.join(_ENDPOINT_TYPES)}")
        return {"endpointAddress": self._endpoint}

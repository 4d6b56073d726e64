# SPDX-License-Identifier: Apache-2.0
"""Fleet provisioning by claim over MQTT, JSON topics (aws-iot-protocol.md section 6.1).

Policy has already decided who may publish here. Replies go to the requesting connection, subscribed or not; there are
no client tokens. A failure leaves the registry as it was, and the ownership token good for another try.

As on AWS, a device that is provisioned again gets one more certificate: earlier ones of the same thing stay ACTIVE
until an operator deactivates them.
"""

from __future__ import annotations

import logging
from typing import Any

from edgeagent import topics
from edgefleet import payload
from edgefleet.errors import ApiError
from edgefleet.messages import Request
from edgefleet.pki import Authority
from edgefleet.provisioning import language, ownership, templates
from edgefleet.provisioning.apply import apply
from edgefleet.provisioning.expressions import Unresolved
from edgefleet.registry import certificates
from edgefleet.store import Tx

log = logging.getLogger(__name__)

_DEPTH = 4
_PREFIX, _SUFFIX = topics.provision("\0").split("\0")


class Rejection(Exception):
    """Becomes `{statusCode, errorCode, errorMessage}` on the rejected topic."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.document = {"statusCode": status, "errorCode": code, "errorMessage": message}


class ClaimProvisioning:
    def __init__(self, authority: Authority, key_type: str = "ec") -> None:
        """key_type: of the keys made here, `ec` or `rsa2048` (AWS makes RSA; boards compute EC much faster)."""
        self._authority = authority
        self._key_type = key_type

    def handle(self, tx: Tx, request: Request) -> bool:
        """Answer a request on a provisioning topic; False if the topic is not one."""
        topic = request.topic
        try:
            if topic == topics.CREATE_KEYS:
                answer = self._create_keys(tx, request.payload)
            elif topic == topics.CREATE_FROM_CSR:
                answer = self._create_from_csr(tx, request.payload)
            elif topic.startswith(_PREFIX) and topic.endswith(_SUFFIX):
                answer = self._provision(tx, topic[len(_PREFIX) : -len(_SUFFIX)], request)
            else:
                return False
        except Rejection as rejection:
            log.info("provisioning refused to client %s: %s", request.client_id, rejection)
            tx.reply(topic + topics.REJECTED, rejection.document)
        else:
            tx.reply(topic + topics.ACCEPTED, answer)
        return True

    def _create_keys(self, tx: Tx, data: bytes) -> dict[str, Any]:
        _object(data)
        pem, key = self._authority.issue_device(key_type=self._key_type)
        return {**_pending(tx, pem), "privateKey": key}

    def _create_from_csr(self, tx: Tx, data: bytes) -> dict[str, Any]:
        request = _object(data)
        csr = request.get("certificateSigningRequest")
        if not isinstance(csr, str) or not csr:
            raise Rejection("InvalidPayload", "certificateSigningRequest: must be a PEM text")
        try:
            pem, _ = self._authority.issue_device(csr)
        except ApiError as error:
            raise Rejection("InvalidCsr", error.message) from error
        return _pending(tx, pem)

    def _provision(self, tx: Tx, template_name: str, request: Request) -> dict[str, Any]:
        document = _object(request.payload)
        template = _template(tx, template_name)
        token = document.get("certificateOwnershipToken")
        if not token or not isinstance(token, str):
            raise Rejection("InvalidCertificateOwnershipToken", "Certificate ownership token cannot be empty")
        certificate_id = ownership.certificate_of(tx, token)
        if certificate_id is None:
            raise Rejection("InvalidCertificateOwnershipToken", "Certificate ownership token is invalid")
        # The certificate's id is ours to say, whatever the device claims.
        parameters = {**_parameters(document.get("parameters")), language.CERTIFICATE_ID: certificate_id}
        try:
            wanted = template.evaluate(parameters)
        except Unresolved as error:
            raise Rejection("InvalidParameters", str(error)) from error
        # A device that replaces its certificate comes with the old one. It is no way to become another device; AWS
        # leaves this to a pre-provisioning hook.
        own = certificates.things_of(tx, request.certificate_id)
        if own and (wanted.thing is None or wanted.thing.name not in own):
            raise Rejection("AccessDenied", "Access Denied", 403)
        try:
            with tx.savepoint():
                applied = apply(tx, wanted, self._authority)
                ownership.use(tx, token)
        except ApiError as error:
            raise Rejection("ProvisioningFailed", f"Provisioning failed: {error.message}") from error
        log.info("provisioned thing %s with certificate %s", applied.thing_name, certificate_id)
        answer: dict[str, Any] = {"deviceConfiguration": wanted.device_configuration}
        if applied.thing_name is not None:
            answer["thingName"] = applied.thing_name
        return answer


def _pending(tx: Tx, pem: str) -> dict[str, Any]:
    try:
        certificate_id, token = ownership.create(tx, pem)
    except ApiError as error:
        raise Rejection(error.code, error.message, error.status) from error
    return {"certificateId": certificate_id, "certificatePem": pem, "certificateOwnershipToken": token}


def _object(data: bytes) -> dict[str, Any]:
    """The request; an empty payload is an empty object (section 0, rule 8)."""
    try:
        document = payload.parse(data, _DEPTH) if data.strip() else {}
    except ValueError as error:
        raise Rejection("InvalidPayload", f"The request message payload could not be parsed: {error}") from None
    if not isinstance(document, dict):
        raise Rejection("InvalidPayload", "The request message payload must be a JSON object")
    return document


def _template(tx: Tx, name: str) -> language.Template:
    found = templates.get(tx, name)
    if found is None:
        raise Rejection("InvalidTemplate", f"Provisioning template with name {name[:36]} does not exist")
    if not found["enabled"]:
        raise Rejection("InvalidTemplate", f"Provisioning template with name {name} is not enabled")
    body = templates.version(tx, name, found["defaultVersionId"])["templateBody"]
    return language.parse(body, fleet=True)


def _parameters(parameters: Any) -> dict[str, str]:
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Rejection("InvalidParameters", "parameters: must be an object of strings")
    for name, value in parameters.items():
        if not isinstance(value, str):
            raise Rejection("InvalidParameters", f"parameters.{name[:128]}: must be a string")
    return parameters

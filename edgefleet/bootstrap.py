# SPDX-License-Identifier: Apache-2.0
"""What a site makes by itself on its first start: operator's key, server certificate, default policies and template.

Files are made when they are missing; what lies in the store is made once and never again, so that an operator who
deletes the claim policy does not find it back after a restart.
"""

from __future__ import annotations

import configparser
import json
import os
import secrets
import string
import time
from pathlib import Path
from typing import Any

from cryptography import x509

from edgeagent import topics
from edgefleet import names
from edgefleet.errors import InputError
from edgefleet.pki import Authority, load_certificate
from edgefleet.provisioning.operations import ProvisioningOperations
from edgefleet.registry.operations import RegistryOperations
from edgefleet.store import Tx

PROFILE = "edgefleet"
DEVICE_POLICY = "edgeagent-device"
CLAIM_POLICY = "edgeagent-claim"
ROTATE_POLICY = "edgeagent-rotate"
TEMPLATE = "edgeagent"
# No identity service stands behind a role here; the model demands one, and the text tells where it comes from.
PROVISIONING_ROLE = f"arn:aws:iam::{names.ACCOUNT}:role/edgefleet-provisioning"
_RENEW_S = 30 * 24 * 3600  # a server certificate is replaced this long before it ends


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole and durably, or not at all; nobody else may read it (unless `mode` says so)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def operator_keys(folder: Path) -> dict[str, str]:
    """Secret by access key: every profile of `folder`/credentials. The file is made with one key if it is missing.

    Raises InputError if it holds no complete key.
    """
    path = folder / "credentials"
    if not path.exists():
        alphabet = string.ascii_uppercase + string.digits
        key = "EFLT" + "".join(secrets.choice(alphabet) for _ in range(16))
        lines = [f"[{PROFILE}]", f"aws_access_key_id = {key}", f"aws_secret_access_key = {secrets.token_urlsafe(30)}"]
        write_private(path, "\n".join(lines) + "\n")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        keys = {
            section["aws_access_key_id"]: section["aws_secret_access_key"]
            for name, section in parser.items()
            if name != parser.default_section
        }
    except (configparser.Error, KeyError, OSError, UnicodeError) as error:
        raise InputError(f"{path}: is not an AWS credentials file: {error}") from None
    if not keys or not all(keys) or not all(keys.values()):
        raise InputError(f"{path}: holds no complete access key")
    return keys


def write_profile(folder: Path, api: str, ca: Path) -> None:
    """`folder`/config: the profile with which `aws`, boto3 and `edgefleet` find this site. Rewritten at each start."""
    lines = [
        "# Written by edgefleet at every start.",
        f"[profile {PROFILE}]",
        f"region = {names.REGION}",
        f"endpoint_url = {api}",
        f"ca_bundle = {ca}",
        "request_checksum_calculation = when_required",
        "response_checksum_validation = when_required",
        "s3 =",
        "    addressing_style = path",
    ]
    write_private(folder / "config", "\n".join(lines) + "\n")


def server_certificate(authority: Authority, folder: Path, hosts: list[str]) -> tuple[Path, Path]:
    """Paths of (certificate, key) of the site's servers, made anew when the hosts differ or the end is near."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not (certificate.exists() and key.exists() and _covers(certificate, authority, hosts)):
        certificate_pem, key_pem = authority.issue_server(hosts)
        certificate.unlink(missing_ok=True)  # a crash in between must not leave a certificate of another key
        write_private(key, key_pem)
        write_private(certificate, certificate_pem, 0o644)
    return certificate, key


def _covers(path: Path, authority: Authority, hosts: list[str]) -> bool:
    try:
        certificate = load_certificate(path.read_text(encoding="utf-8"))
        certificate.verify_directly_issued_by(load_certificate(authority.ca_pem))
        names_ = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, a new one is made
        return False
    found = {str(name.value) for name in names_}
    return found == set(hosts) and certificate.not_valid_after_utc.timestamp() > time.time() + _RENEW_S


def defaults(tx: Tx, registry: RegistryOperations, provisioning: ProvisioningOperations, claim_folder: Path) -> None:
    """Policies, claim certificate and provisioning template of a new site; does nothing if they were made before.

    The claim's files are written inside the transaction: without its commit they are worth nothing and are made again.
    """
    if tx.value("SELECT 1 FROM site_setup WHERE step = 'defaults'"):
        return
    registry.create_policy(tx, policyName=DEVICE_POLICY, policyDocument=json.dumps(device_policy()))
    registry.create_policy(tx, policyName=CLAIM_POLICY, policyDocument=json.dumps(claim_policy()))
    registry.create_policy(tx, policyName=ROTATE_POLICY, policyDocument=json.dumps(rotate_policy()))
    claim = registry.create_keys_and_certificate(tx, setAsActive=True)
    registry.attach_policy(tx, policyName=CLAIM_POLICY, target=claim["certificateArn"])
    provisioning.create_provisioning_template(
        tx,
        templateName=TEMPLATE,
        description="Devices that carry the site's claim certificate",
        templateBody=json.dumps(template_body()),
        enabled=True,
        provisioningRoleArn=PROVISIONING_ROLE,
    )
    write_private(claim_folder / "key.pem", claim["keyPair"]["PrivateKey"])
    write_private(claim_folder / "certificate.pem", claim["certificatePem"])
    tx.execute("INSERT INTO site_setup (step, done_at) VALUES ('defaults', ?)", (time.time(),))


def device_policy() -> dict[str, Any]:
    """A device may connect as itself and use its own topics, nothing else."""
    own = "${iot:Connection.Thing.ThingName}"
    publish = [f"$aws/things/{own}/*", f"$aws/rules/{topics.UPLOAD_RULE}/{own}/*", f"edge/{own}/*"]
    publish.append(topics.TELEMETRY.replace("{thing}", own))
    receive = [f"$aws/things/{own}/*", f"edge/{own}/*"]
    return _policy(
        _allow("iot:Connect", [names.arn(f"client/{own}")]),
        _allow("iot:Publish", [names.arn(f"topic/{topic}") for topic in publish]),
        _allow("iot:RetainPublish", [names.arn(f"topic/edge/{own}/presence")]),
        _allow("iot:Receive", [names.arn(f"topic/{topic}") for topic in receive]),
        _allow("iot:Subscribe", [names.arn(f"topicfilter/{topic}") for topic in receive]),
    )


def claim_policy() -> dict[str, Any]:
    """A claim certificate may connect under any name, get a certificate, and run the one template (section 6.2)."""
    return _policy(_allow("iot:Connect", [names.arn("client/*")]), *_provisioning())


def rotate_policy() -> dict[str, Any]:
    """To be attached to a thing group for as long as its devices are to replace their certificates (docs/identity.md).

    That a device gets one for itself only is held by provisioning/device_plane.py, which knows who asks.
    """
    return _policy(*_provisioning())


def _provisioning() -> list[dict[str, Any]]:
    allowed = [
        topics.CREATE_KEYS.removesuffix("json") + "*",
        topics.CREATE_FROM_CSR.removesuffix("json") + "*",
        topics.provision(TEMPLATE).removesuffix("json") + "*",
    ]
    return [
        _allow(["iot:Publish", "iot:Receive"], [names.arn(f"topic/{topic}") for topic in allowed]),
        _allow("iot:Subscribe", [names.arn(f"topicfilter/{topic}") for topic in allowed]),
    ]


def template_body() -> dict[str, Any]:
    """The thing is named after its serial number; a device that comes again keeps its attributes, type and groups."""
    return {
        "Parameters": {
            "SerialNumber": {"Type": "String"},
            "AWS::IoT::Certificate::Id": {"Type": "String"},
        },
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Ref": "SerialNumber"},
                    "AttributePayload": {"serial": {"Ref": "SerialNumber"}},
                },
                "OverrideSettings": {
                    "AttributePayload": "MERGE",
                    "ThingTypeName": "DO_NOTHING",
                    "ThingGroups": "DO_NOTHING",
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": DEVICE_POLICY}},
        },
    }


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(action: str | list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resources}

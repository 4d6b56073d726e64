# SPDX-License-Identifier: Apache-2.0
"""A device's certificate from first contact to rotation, on a virtual board and a Linux agent, and no key anywhere."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagent.identity import pem_to_der
from edgefleet import bootstrap, devices
from edgefleet.artifacts.uploads import BUCKET
from examples.demo.judge import Judge, wait_for
from examples.demo.processes import FleetManager, LinuxAgent
from hil.virtual_board import VirtualBoard

WITHIN_S = 10  # for a trial to connect
SEED = 20261123
# From power-on to the restart with the new certificate a board does more than 40 flash operations.
CUTS = [f"{random.Random(SEED + n).randrange(40)}:{('before', 'torn', 'after')[n % 3]}" for n in range(6)]
REFUSED = "refused"  # a template whose certificates the broker does not let in


# RFC 5915: version 1 and an octet string, alone or within PKCS #8.
EC_KEY = re.compile(rb"\x02\x01\x01\x04\x20(.{32})", re.DOTALL)


def forms(key: bytes) -> list[bytes]:
    """How 16 bytes from the middle of a secret look as they are, in hex, base64, a repr and a list of numbers."""
    part = key[8:24]
    found = [part, part.hex().encode(), part.hex().upper().encode(), repr(part)[2:-1].encode()]
    found += [str(list(part))[1:-1].encode()]
    # In base64 three bytes are four characters: whole groups, at each alignment.
    found += [base64.b64encode(key[8 + n : 23 + n]) for n in range(3)]
    return found


class Device:
    """A board or a Linux agent that onboards with a request of its own and keeps each key it ever had for the judge."""

    def __init__(self, fleet: FleetManager, judge: Judge, folder: Path, kind: str) -> None:
        self.fleet, self.judge, self.kind = fleet, judge, kind
        self.on_board = kind == "board"
        self.files = folder / kind
        self.board = VirtualBoard(folder / "chip", heap="128k", uid="0242ac110007") if self.on_board else None
        self.pi = LinuxAgent(self.files)
        self.keys: set[bytes] = set()
        self.jobs: list[str] = []
        self.thing = f"{kind}-{'0242ac110007' if self.on_board else 'x'}"
        config = devices.configuration(
            endpoint=fleet.ready["endpoint"],
            port=fleet.ready["mqtt_port"],
            template=fleet.ready["template"],
            parameters={"SerialNumber": "board-{serial}" if self.on_board else "linux-x"},
            csr=True,
        )
        config["confirm_within"] = WITHIN_S
        config["log_level"] = "debug"
        devices.prepare(
            self.files,
            config,
            on_board=self.on_board,
            ca=Path(fleet.ready["ca"]),
            claim_certificate=Path(fleet.ready["claim_certificate"]),
            claim_key=Path(fleet.ready["claim_key"]),
        )

    def start(self) -> None:
        if self.board:
            self.board.flash(self.files)
            self.board.power_on()
        else:
            self.pi.start()
        self.wait_online()
        group = f"rotating-{self.kind}"
        arn = self.judge.iot.create_thing_group(thingGroupName=group)["thingGroupArn"]
        self.judge.iot.add_thing_to_thing_group(thingGroupName=group, thingName=self.thing)
        for policy in (bootstrap.ROTATE_POLICY, REFUSED):
            self.judge.iot.attach_policy(policyName=policy, target=arn)

    def stop(self) -> None:
        if self.board:
            self.board.power_off()
        else:
            self.pi.stop()

    @property
    def console(self) -> str:
        return self.board.console if self.board else (self.files / "console.log").read_text(errors="replace")

    def wait_online(self) -> None:
        query = f"thingName:{self.thing} AND connectivity.connected:true AND shadow.reported.port:*"
        wait_for(lambda: self.judge.search(query) or None, lambda: self.console[-3000:], 60)

    def note_keys(self) -> None:
        """Remember the secret numbers of all keys the device has now, the claim's too."""
        folders = [self.files / "state" / "identity", self.files / "certs"]
        stores = [pem_to_der(path.read_bytes()) for folder in folders for path in folder.rglob("*key*.pem")]
        stores += [pem_to_der(path.read_bytes()) for path in folders[0].glob("?/key")]
        if self.board:
            stores.append((self.board.folder / "flash.bin").read_bytes())
        for data in stores:
            self.keys.update(EC_KEY.findall(data))

    def job(self, job: str, document: dict[str, Any], cut: str | None = None) -> tuple[str, dict[str, str]]:
        """Run a job to its end: (status, statusDetails). cut: the flash operation of a board that loses power in it."""
        if self.board and cut:
            self.board.power_off()
        arn = self.judge.iot.describe_thing(thingName=self.thing)["thingArn"]
        job = f"{job}-{self.kind}"
        self.jobs.append(job)
        self.judge.iot.create_job(jobId=job, targets=[arn], document=json.dumps(document))
        if self.board and cut:
            self.board.power_on(cut=cut)

        def probe() -> str | None:
            status = self.judge.executions(job).get(self.thing)
            return status if status not in (None, "QUEUED", "IN_PROGRESS") else None

        status = wait_for(probe, lambda: self.console[-3000:], 120)
        return status, self.judge.details(job, self.thing)

    def certificates(self) -> set[str]:
        return {arn.rsplit("/", 1)[1] for arn in self.judge.certificates(self.thing)}

    def deactivate(self, certificate: str) -> None:
        self.judge.iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")


@pytest.fixture(scope="module")
def templates(judge: Judge) -> None:
    """The site's own with a device configuration; and one as that but with INACTIVE certificates, and its policy."""
    body = bootstrap.template_body()
    body["DeviceConfiguration"] = {"keepalive": "45", "Url": "https://example.com/x"}
    judge.iot.create_provisioning_template_version(
        templateName=bootstrap.TEMPLATE, templateBody=json.dumps(body), setAsDefault=True
    )
    body["Resources"]["certificate"]["Properties"]["Status"] = "INACTIVE"
    judge.iot.create_provisioning_template(
        templateName=REFUSED,
        templateBody=json.dumps(body),
        enabled=True,
        provisioningRoleArn=bootstrap.PROVISIONING_ROLE,
    )
    document = json.dumps(bootstrap.rotate_policy()).replace(
        f"provisioning-templates/{bootstrap.TEMPLATE}/", f"provisioning-templates/{REFUSED}/"
    )
    judge.iot.create_policy(policyName=REFUSED, policyDocument=document)


@pytest.fixture(scope="module", params=["board", "linux"])
def device(
    request: pytest.FixtureRequest,
    fleet: FleetManager,
    judge: Judge,
    templates: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Device]:
    device = Device(fleet, judge, tmp_path_factory.mktemp("device"), request.param)
    try:
        device.start()
        yield device
    finally:
        device.stop()


def test_it_onboards_with_a_request_made_on_the_device(device: Device, judge: Judge) -> None:
    device.note_keys()
    (certificate,) = device.certificates()
    assert judge.iot.describe_certificate(certificateId=certificate)["certificateDescription"]["status"] == "ACTIVE"
    if device.board:
        kept = (device.board.folder / "flash.bin").read_bytes()
    else:
        kept = (device.files / "agent.json").read_bytes()
    assert b'"keepalive": 45' in kept
    assert b'"device_configuration": {"Url": "https://example.com/x"}' in kept


def test_a_rotation_ends_on_the_new_certificate_and_the_old_can_go(device: Device) -> None:
    (old,) = device.certificates()
    status, details = device.job("rotate", {"operation": "rotate-certificate"})
    assert status == "SUCCEEDED", (details, device.console[-3000:])
    assert details["previousCertificateId"] == old
    assert device.certificates() == {old, details["certificateId"]}
    device.note_keys()
    device.deactivate(old)
    assert device.job("after", {"operation": "config", "config": {"attributes": {"x": 0}}})[0] == "SUCCEEDED", (
        device.console[-3000:]
    )


def test_the_service_may_make_the_key_instead(device: Device) -> None:
    before = device.certificates()
    status, details = device.job("made-there", {"operation": "rotate-certificate", "csr": False})
    assert status == "SUCCEEDED", (details, device.console[-3000:])
    assert details["certificateId"] not in before
    assert details["previousCertificateId"] in before
    device.note_keys()


@pytest.mark.parametrize("device", ["board"], indirect=True)  # a host: tests/portable/test_rotation.py cuts there
@pytest.mark.parametrize("cut", CUTS)
def test_power_lost_at_a_flash_operation_of_the_rotation_still_ends_on_a_new_certificate(
    device: Device, cut: str
) -> None:
    assert device.board
    before, cuts = device.certificates(), device.board.cuts
    status, details = device.job(f"cut-{cut.replace(':', '-')}", {"operation": "rotate-certificate"}, cut)
    assert status == "SUCCEEDED", (details, device.console[-3000:])
    assert device.board.cuts == cuts + 1
    assert details["certificateId"] not in before
    assert details["previousCertificateId"] in before
    device.note_keys()


def test_a_certificate_the_broker_refuses_is_given_up_by_itself(device: Device) -> None:
    before = device.certificates()
    status, details = device.job("refused", {"operation": "rotate-certificate", "template": REFUSED})
    assert status == "FAILED"
    assert details["reason"].startswith(f"rolled back: no connection within {WITHIN_S} s: "), details
    assert device.certificates() - before == {details["certificateId"]}
    device.wait_online()
    assert device.job("still-there", {"operation": "config", "config": {"attributes": {"x": 1}}})[0] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("name", "document", "reason"),
    [
        ("other", {"parameters": {"SerialNumber": "somebody-else"}}, "no new certificate: AccessDenied: Access Denied"),
        ("missing", {"template": bootstrap.TEMPLATE, "parameters": {}}, "no new certificate: InvalidParameters"),
        ("no-fact", {"parameters": {"SerialNumber": "{colour}"}}, "no new certificate: parameters.SerialNumber: no su"),
        ("denied", {"template": "forbidden"}, "no new certificate: "),
        ("wrong-type", {"parameters": ["x"]}, "template must be a name, parameters an object"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason_and_the_identity_stays(
    device: Device, name: str, document: dict[str, Any], reason: str
) -> None:
    status, details = device.job(name, {"operation": "rotate-certificate", **document})
    assert status == "FAILED"
    assert details["reason"].startswith(reason), details
    device.wait_online()


def test_no_key_is_in_anything_that_can_be_read_outside(device: Device, judge: Judge, fleet: FleetManager) -> None:
    for n in range(2):
        assert device.job(f"last-bundle-{n}", {"operation": "diagnostics"})[0] == "SUCCEEDED"
    device.note_keys()
    assert len(device.keys) >= 4, "the claim's and those of three generations"
    outputs = {
        "console": device.console.encode(),
        "shadow": json.dumps(judge.reported(device.thing)).encode(),
        "details": json.dumps([judge.details(job, device.thing) for job in device.jobs]).encode(),
    }
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            outputs[str(entry)] = entry.read_bytes()
    bundles = 0
    for item in judge.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        bundles += device.thing in item["Key"]
        outputs[item["Key"]] = judge.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
    assert bundles
    outputs["edgefleet.log"] = (fleet.data.parent / "edgefleet.log").read_bytes()
    for path in fleet.data.rglob("*"):
        if path.is_file() and path.parent != Path(fleet.ready["claim_key"]).parent:
            outputs[str(path)] = path.read_bytes()
    if device.board:
        # What is kept there is the key as DER, and nothing else.
        image = (device.board.folder / "flash.bin").read_bytes()
        outputs["flash"] = EC_KEY.sub(b"", image)
    else:
        own = {"claim-key.pem", "key"}
        for path in device.files.rglob("*"):
            if path.is_file() and path.name not in own:
                outputs[str(path)] = path.read_bytes()
    for name, text in outputs.items():
        for key in device.keys:
            assert not [form for form in forms(key) if form in text], name


def test_the_search_for_keys_finds_one_in_every_form(device: Device) -> None:
    key = next(iter(device.keys))
    der = b"\x30\x77\x02\x01\x01\x04\x20" + key + b"rest"
    shown = [der, der.hex().encode(), der.hex().upper().encode(), repr(der).encode(), str(list(der)).encode()]
    shown += [base64.b64encode(b"x" * n + der) for n in range(3)]
    for text in shown:
        assert [form for form in forms(key) if form in text], text

# SPDX-License-Identifier: Apache-2.0
"""AWS's own device SDK (awsiotsdk, MQTT 3.1.1) against a running site: jobs, shadow, provisioning by claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awsiot
import pytest
from awscrt import mqtt_request_response
from awsiot import iotidentity, iotjobs, iotshadow, mqtt_connection_builder

from examples.demo.judge import Judge
from examples.demo.processes import FleetManager
from tests.integration.peer import Credentials, register_device

TIMEOUT_S = 15
OPTIONS = mqtt_request_response.ClientOptions(
    max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=TIMEOUT_S
)


def connect(fleet: FleetManager, client_id: str, credentials: Credentials) -> Any:
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint=fleet.ready["endpoint"],
        port=fleet.mqtt_port,
        ca_filepath=fleet.ready["ca"],
        cert_filepath=str(credentials.certificate),
        pri_key_filepath=str(credentials.key),
        client_id=client_id,
        clean_session=True,
    )
    connection.connect().result(TIMEOUT_S)
    return connection


@pytest.fixture(scope="module")
def connection(fleet: FleetManager, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = connect(fleet, "sdk", register_device(judge, tmp_path_factory.mktemp("sdk"), "sdk"))
    yield made
    made.disconnect().result(TIMEOUT_S)


def test_jobs_client_takes_and_finishes_a_job(connection: Any, judge: Judge) -> None:
    judge.iot.create_job(
        jobId="sdk-job", targets=[judge.iot.describe_thing(thingName="sdk")["thingArn"]], document='{"operation":"x"}'
    )
    jobs = iotjobs.IotJobsClientV2(connection, OPTIONS)
    pending = jobs.get_pending_job_executions(iotjobs.GetPendingJobExecutionsRequest(thing_name="sdk")).result(
        TIMEOUT_S
    )
    assert [summary.job_id for summary in pending.queued_jobs] == ["sdk-job"]
    started = jobs.start_next_pending_job_execution(
        iotjobs.StartNextPendingJobExecutionRequest(thing_name="sdk")
    ).result(TIMEOUT_S)
    assert started.execution.job_document == {"operation": "x"}
    jobs.update_job_execution(
        iotjobs.UpdateJobExecutionRequest(
            thing_name="sdk", job_id="sdk-job", status="SUCCEEDED", status_details={"a": "b"}
        )
    ).result(TIMEOUT_S)
    assert judge.executions("sdk-job") == {"sdk": "SUCCEEDED"}
    assert judge.details("sdk-job", "sdk") == {"a": "b"}


def test_shadow_client_updates_and_reads(connection: Any, judge: Judge) -> None:
    shadow = iotshadow.IotShadowClientV2(connection, OPTIONS)
    update = iotshadow.UpdateShadowRequest(thing_name="sdk", state=iotshadow.ShadowState(reported={"n": 7}))
    assert shadow.update_shadow(update).result(TIMEOUT_S).version == 1
    got = shadow.get_shadow(iotshadow.GetShadowRequest(thing_name="sdk")).result(TIMEOUT_S)
    assert got.state.reported == {"n": 7}
    assert judge.search("shadow.reported.n:7") == ["sdk"]


def test_a_missing_shadow_is_the_sdks_404(connection: Any) -> None:
    shadow = iotshadow.IotShadowClientV2(connection, OPTIONS)
    with pytest.raises(awsiot.V2ServiceException) as refused:
        shadow.get_named_shadow(iotshadow.GetNamedShadowRequest(thing_name="sdk", shadow_name="none")).result(TIMEOUT_S)
    assert refused.value.modeled_error.code == 404


def test_identity_client_provisions_by_claim(fleet: FleetManager, judge: Judge, tmp_path: Path) -> None:
    claim = Credentials(Path(fleet.ready["claim_certificate"]), Path(fleet.ready["claim_key"]), "", "")
    connection = connect(fleet, "sdk-claim", claim)
    identity = iotidentity.IotIdentityClientV2(connection, OPTIONS)
    keys = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(TIMEOUT_S)
    thing = identity.register_thing(
        iotidentity.RegisterThingRequest(
            template_name=fleet.ready["template"],
            certificate_ownership_token=keys.certificate_ownership_token,
            parameters={"SerialNumber": "sdk-born"},
        )
    ).result(TIMEOUT_S)
    connection.disconnect().result(TIMEOUT_S)
    assert thing.thing_name == "sdk-born"
    (tmp_path / "c.pem").write_text(keys.certificate_pem)
    (tmp_path / "k.pem").write_text(keys.private_key)
    own = connect(fleet, "sdk-born", Credentials(tmp_path / "c.pem", tmp_path / "k.pem", "", ""))
    shadow = iotshadow.IotShadowClientV2(own, OPTIONS)  # kept: the SDK gives up requests of a client nobody holds
    update = iotshadow.UpdateShadowRequest(thing_name="sdk-born", state=iotshadow.ShadowState(reported={"ok": True}))
    shadow.update_shadow(update).result(TIMEOUT_S)
    own.disconnect().result(TIMEOUT_S)
    assert judge.reported("sdk-born") == {"ok": True}

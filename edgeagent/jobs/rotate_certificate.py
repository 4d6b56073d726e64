# SPDX-License-Identifier: Apache-2.0
"""Job operation `rotate-certificate`: a new key and certificate for the same thing, tried before the old are given up.

Over the device's own connection, with Fleet Provisioning, so it works on AWS IoT as it stands; docs/identity.md has the
policy a device needs for it. The new generation is stored on trial (identity.py) and the device restarts. `watch` then
confirms it as soon as the service has let it in and taken its subscriptions, or goes back to the old one.

SUCCEEDED with {certificateId, previousCertificateId}: the operator may now deactivate the previous one. FAILED "rolled
back: …" with {certificateId} of the one that did not work, on the old identity.
"""

import asyncio

from edgeagent.compat import Any, const, exc_text, wait_for
from edgeagent.errors import AgentError, JobFailed, TransportError
from edgeagent.identity import Identity, certificate_id, pem_to_der, read_credential
from edgeagent.jobs.protocol import is_name

RESUME = True

_TRIES = const(3)
_LINK_S = const(60)


async def run(job: "Any") -> "dict[str, Any]":
    """{"operation": "rotate-certificate", "template": "fleet", "csr": true, "parameters": {"SerialNumber": "{serial}"}}

    template, parameters: default those of the claim in agent.json. csr: the key is made here (default) or by the
    service. Raises JobFailed.
    """
    agent = job.agent
    identity = Identity(agent.port.state_dir, agent.port.pem)
    data = job.data
    used = certificate_id(read_credential(agent.credentials[0]))
    new = data.get("certificateId")
    state = identity.state(new)
    if state is None:  # nothing stored yet, whatever was asked for before a cut
        await _begin(job, identity, used)
    if used != new:
        if not isinstance(state, str):
            state = "%s boots without a connection" % state
        raise JobFailed("rolled back: " + state, {"certificateId": new})
    try:
        identity.finish()
    except OSError as error:
        raise JobFailed("the new certificate works but cannot be kept: " + exc_text(error), data) from None
    return {"certificateId": new, "previousCertificateId": data["previousCertificateId"]}


async def _begin(job: "Any", identity: Identity, used: str) -> None:
    """Get the new identity, store it on trial and restart. Raises JobFailed; the old identity is then in force."""
    agent = job.agent
    document = job.document
    claim = agent.config.claim or {"template": None, "parameters": {}}
    wanted = {
        "template": document.get("template", claim["template"]),
        "parameters": document.get("parameters", claim["parameters"]),
    }
    if not is_name(wanted["template"]) or not isinstance(wanted["parameters"], dict):
        raise JobFailed("template must be a name, parameters an object")
    pair = None
    if document.get("csr", True):
        from edgeagent.csr import request

        pair = await request(agent.port, agent.facts())
        del request
    from edgeagent.provisioning import provision

    tries = _TRIES
    while True:
        try:
            await wait_for(agent.connected.wait(), _LINK_S)
            answer = await provision(agent.requests, wanted, agent.facts(), pair)
            break
        except (
            asyncio.TimeoutError,
            TransportError,
        ) as error:  # a service that denies the topics closes the connection
            tries -= 1
            if not tries:
                raise JobFailed("no new certificate: %s; does the policy allow it?" % exc_text(error)) from None
            await asyncio.sleep(1)
        except AgentError as error:
            raise JobFailed("no new certificate: %s" % error) from None
    name = answer["thingName"]
    if name != agent.thing_name:
        raise JobFailed("the new certificate is for %s" % name)
    pems = answer["certificatePem"], answer["privateKey"]
    new = certificate_id(pem_to_der(pems[0]))
    # Before it is stored: a boot with the new identity must know what it is about.
    job.checkpoint(certificateId=new, previousCertificateId=used)
    try:
        identity.store(name, pems[0], pems[1], True)
        job.reset("new certificate")
    except (OSError, AgentError) as error:
        try:
            identity.finish("not tried")
        except OSError:
            pass
        raise JobFailed("not tried: " + exc_text(error), {"certificateId": new}) from None


async def watch(agent: "Any", identity: Identity) -> None:
    """End the trial of the identity in use: confirm it when connected, or go back and restart after `confirm_within` s.

    identity.start has counted this boot, so crashes and power cuts in the trial end it too.
    """
    seconds = agent.config.confirm_within
    try:
        await wait_for(agent.connected.wait(), seconds)
    except asyncio.TimeoutError:
        why = agent.client and agent.client._error
        try:
            identity.finish("no connection within %d s: %s" % (seconds, why))
        except OSError:
            pass  # the boots are counted
        agent.port.reset()
    identity.finish()
    # On boards an ended task that is kept keeps this module.
    agent._tasks.remove(asyncio.current_task())

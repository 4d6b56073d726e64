# SPDX-License-Identifier: Apache-2.0
"""The job rotate-certificate from its start to its one terminal status, with power cut at every file operation."""

import asyncio
import binascii
import os
import unittest

from edgeagent import compat
from edgeagent.errors import Refused, TransportError
from edgeagent.identity import Identity, certificate_id, pem_to_der, read_credential
from edgeagent.jobs.runner import Runner
from edgeagent.onboard import identify
from tests.portable.job_service import Device, Fuse, Port, PowerCut, Service
from tests.portable.test_identity import pem

JOB = {"operation": "rotate-certificate", "csr": False}


def certificate(number):
    return pem("CERTIFICATE", b"certificate %d" % number)


def identifier(number):
    return certificate_id(pem_to_der(certificate(number)))


class Fleet:
    """Makes certificates with increasing numbers; number 0 is what the device has. lets_in: the ids of those it takes
    connections of. refuses: new ones are not among them.
    """

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.lets_in = {identifier(0)}
        self.made = 0
        self.thing = "t"
        self.answers = []  # errors to answer the next requests with
        self.asked = []

    def answer(self, topic, body):
        self.asked.append((topic, body))
        if self.answers:
            raise self.answers.pop(0)
        if topic.startswith("$aws/certificates/"):
            self.made += 1
            key = pem("RSA PRIVATE KEY", b"key %d" % self.made)
            token = "token %d" % self.made
            return {"certificatePem": certificate(self.made), "privateKey": key, "certificateOwnershipToken": token}
        if not self.refuses:
            self.lets_in.add(identifier(self.made))
        return {"thingName": self.thing, "deviceConfiguration": {}}


class Machine(Port):
    state_dir = "rotation-test-" + binascii.hexlify(os.urandom(6)).decode()
    pem = False


def wipe():
    compat.remove_tree(Machine.state_dir)


class Rotating(Device):
    """A boot of the device: `identify`, then connected if the fleet lets it in, else waiting for what happens."""

    def __init__(self, service, fleet, boot):
        self.fleet = fleet
        Device.__init__(self, service, boot)
        self.port = Machine(boot)
        self.runner = Runner(self)
        self.config = self
        self.confirm_within = 0.02
        self.certificate = self.key = None
        self.claim = {"template": "fleet", "parameters": {"SerialNumber": "t"}}
        self._tasks = []

    async def call(self, topic, body, token=True):
        if topic.startswith("$aws/things/"):
            return await Device.call(self, topic, body)
        await asyncio.sleep(0)
        return self.fleet.answer(topic, body)

    def _begin(self, function):
        self._tasks.append(asyncio.create_task(function()))

    async def idle(self):
        await self.until(lambda: self.service.over() and not compat.exists(Machine.state_dir + "/job.json"))

    async def main(self):
        self._error = None
        found = await identify(self)
        if certificate_id(read_credential(found[1])) in self.fleet.lets_in:
            await self.connect()
            self._begin(self.runner.run)
        else:
            self._error = "refused"
        await self.idle()


def live(service, fleet, boots=12):
    """Boot after boot until the job is over; how many it took."""
    for boot in range(1, boots):
        device = Rotating(service, fleet, boot)
        asyncio.new_event_loop()
        try:
            asyncio.run(device.main())
            return boot
        except PowerCut:
            pass
    raise AssertionError("not over within %d boots: %s" % (boots, service.history))


def used():
    """(id of the certificate, thing name) that the next boot starts with."""
    found = Identity(Machine.state_dir, False).load()
    return certificate_id(read_credential(found[1])), found[0]


class Rotation(unittest.TestCase):
    def setUp(self):
        wipe()
        Identity(Machine.state_dir, False).store("t", certificate(0), pem("RSA PRIVATE KEY", b"key 0"))
        self.service = Service()
        self.fleet = Fleet()
        self.service.add("j", JOB)

    def tearDown(self):
        wipe()

    def outcome(self):
        self.assertEqual(len(self.service.terminal("j")), 1)
        return self.service.status("j"), self.service.details("j")

    def failed(self, reason):
        live(self.service, self.fleet)
        status, details = self.outcome()
        self.assertEqual((status, details["reason"][: len(reason)]), ("FAILED", reason))
        self.assertEqual(used(), (identifier(0), "t"))
        return details

    def test_it_ends_on_the_new_certificate_and_names_both(self):
        self.assertEqual(live(self.service, self.fleet), 2)
        status, details = self.outcome()
        self.assertEqual(status, "SUCCEEDED")
        self.assertEqual(details, {"certificateId": identifier(1), "previousCertificateId": identifier(0)})
        self.assertEqual(used(), (identifier(1), "t"))

    def test_the_claims_template_and_parameters_are_the_default(self):
        live(self.service, self.fleet)
        topic, body = self.fleet.asked[1]
        self.assertEqual(topic, "$aws/provisioning-templates/fleet/provision/json")
        self.assertEqual(body["parameters"], {"SerialNumber": "t"})

    def test_the_document_may_name_others_with_facts_in_them(self):
        self.service = Service()
        self.service.add("j", dict(JOB, template="special", parameters={"Name": "x-{board}", "Number": 7}))
        live(self.service, self.fleet)
        topic, body = self.fleet.asked[1]
        self.assertEqual(topic, "$aws/provisioning-templates/special/provision/json")
        self.assertEqual(body["parameters"], {"Name": "x-TEST", "Number": "7"})

    def test_the_device_makes_the_request_itself_unless_told_otherwise(self):
        self.service = Service()
        self.service.add("j", {"operation": "rotate-certificate"})
        live(self.service, self.fleet)
        topic, body = self.fleet.asked[0]
        self.assertEqual(topic, "$aws/certificates/create-from-csr/json")
        self.assertIn("BEGIN CERTIFICATE REQUEST", body["certificateSigningRequest"])
        self.assertEqual(self.outcome()[0], "SUCCEEDED")

    def test_a_second_rotation_goes_on_from_the_first(self):
        live(self.service, self.fleet)
        self.service.add("k", JOB)
        live(self.service, self.fleet)
        details = self.service.details("k")
        self.assertEqual(details, {"certificateId": identifier(2), "previousCertificateId": identifier(1)})

    def test_a_certificate_that_is_not_let_in_is_given_up(self):
        self.fleet.refuses = True
        details = self.failed("rolled back: no connection within 0 s: ")
        self.assertEqual(details["certificateId"], identifier(1))

    def test_after_a_roll_back_the_next_rotation_can_succeed(self):
        self.fleet.refuses = True
        live(self.service, self.fleet)
        self.fleet.refuses = False
        self.service.add("k", JOB)
        live(self.service, self.fleet)
        self.assertEqual(self.service.status("k"), "SUCCEEDED")
        self.assertEqual(used(), (identifier(2), "t"))

    def test_a_certificate_for_another_thing_is_not_taken(self):
        self.fleet.thing = "other"
        self.failed("the new certificate is for other")

    def test_a_refusal_is_the_reason(self):
        self.fleet.answers = [Refused("InvalidTemplate", "no such")]
        self.failed("no new certificate: InvalidTemplate: no such")

    def test_a_lost_link_is_tried_again_but_not_for_ever(self):
        self.fleet.answers = [TransportError("gone")]
        live(self.service, self.fleet)
        self.assertEqual(self.outcome()[0], "SUCCEEDED")
        self.service = Service()
        self.service.add("j", JOB)
        self.fleet.answers = [TransportError("gone")] * 3
        live(self.service, self.fleet)
        self.assertIn("does the policy allow it?", self.outcome()[1]["reason"])

    def test_a_template_that_is_no_name_is_not_put_into_a_topic(self):
        for template in ("a/b", "#", "", 7, None):
            self.setUp()
            self.service = Service()
            self.service.add("j", dict(JOB, template=template))
            self.failed("template must be a name")
            self.assertEqual(self.fleet.asked, [])

    def test_a_cancelled_job_leaves_a_certificate_that_works(self):
        device = Rotating(self.service, self.fleet, 1)
        asyncio.new_event_loop()
        try:
            asyncio.run(device.main())
        except PowerCut:
            self.service.cancel("j")
        live(self.service, self.fleet)
        self.assertEqual(used()[0], identifier(1))
        self.assertEqual(Identity(Machine.state_dir, False).state(identifier(1)), "")

    def sweep(self, refuses, wanted):
        """Cut at each file operation of the whole life, before, within and after it."""
        cuts = 0
        for mode in ("before", "torn", "after"):
            at = 0
            while True:
                at += 1
                self.setUp()
                self.fleet.refuses = refuses
                fuse = Fuse(at, mode)
                with fuse:
                    try:
                        live_once(self.service, self.fleet, fuse)
                    except PowerCut:
                        pass
                if not fuse.dead:
                    break
                cuts += 1
                found = used()
                self.assertEqual(found[1], "t")
                self.assertIn(found[0], (identifier(0), identifier(1), identifier(2)))
                live(self.service, self.fleet)
                status, details = self.outcome()
                where = "%s %d: %s %s" % (mode, at, status, details)
                # After cuts in the trial either end is right, as long as it is true.
                if status == "SUCCEEDED":
                    self.assertEqual(used()[0], details["certificateId"], where)
                    self.assertFalse(refuses, where)
                else:
                    self.assertEqual(used()[0], identifier(0), where)
                    self.assertTrue(refuses, where)
                    self.assertEqual(details["reason"][:11], "rolled back", where)
        self.assertGreater(cuts, wanted)

    def test_a_cut_at_every_file_operation_ends_on_the_new_certificate(self):
        self.sweep(False, 60)

    def test_a_cut_at_every_file_operation_of_one_that_is_refused_ends_on_the_old(self):
        self.sweep(True, 60)

    def test_power_cuts_in_every_trial_boot_do_not_loop(self):
        self.fleet.refuses = True
        boots = []

        class Cutting(Rotating):
            async def main(self):
                found = await identify(self)
                boots.append(certificate_id(read_credential(found[1])))
                raise PowerCut()

        self.assertEqual(len(boots), 0)
        asyncio.new_event_loop()
        try:
            asyncio.run(Rotating(self.service, self.fleet, 1).main())
        except PowerCut:
            pass
        for boot in range(2, 8):
            asyncio.new_event_loop()
            try:
                asyncio.run(Cutting(self.service, self.fleet, boot).main())
            except PowerCut:
                pass
        self.assertEqual(boots, [identifier(1)] * 3 + [identifier(0)] * 3)
        self.failed("rolled back: 3 boots without a connection")

    def test_a_boot_that_cannot_be_counted_uses_the_old_certificate(self):
        asyncio.new_event_loop()
        try:
            asyncio.run(Rotating(self.service, self.fleet, 1).main())
        except PowerCut:
            pass
        real = compat.write_atomic

        def full(path, data, private=False):
            if path.endswith("thing.json"):
                raise OSError(28)
            real(path, data, private)

        compat.write_atomic = full
        try:
            self.failed_now("rolled back: 0 boots without a connection")
        finally:
            compat.write_atomic = real

    def failed_now(self, reason):
        live(self.service, self.fleet)
        self.assertEqual(self.service.status("j"), "FAILED")
        self.assertEqual(self.service.details("j")["reason"], reason)


def live_once(service, fleet, fuse):
    """Boot after boot until the fuse has blown or the job is over."""
    for boot in range(1, 12):
        device = Rotating(service, fleet, boot)
        asyncio.new_event_loop()
        try:
            asyncio.run(device.main())
            return
        except PowerCut:
            if fuse.dead:
                return


if __name__ == "__main__":
    unittest.main()

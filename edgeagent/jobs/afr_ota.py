# SPDX-License-Identifier: Apache-2.0
"""Job operation of AWS OTA updates ("afr_ota" documents, CreateOTAUpdate): our artifact as one file of a stream.

Document: {"afr_ota": {"protocols": ["MQTT"], "streamname": ID, "files": [{"fileid": n, "filesize": bytes,
"sig-sha256-ecdsa": base64, ...}]}} (aws-iot-protocol.md 10.4); without MQTT among the protocols but with HTTP, the file
has "update_data_url": presigned URL. The file is the three parts of an artifact (docs/ota.md)
one after the other: envelope, hash list, payload. They are fetched as ranges of it, and all rules of operation `ota`
hold. On top, the code-signing signature over the SHA-256 of the whole file (ECDSA P-256 as DER, or "sig-sha256-rsa",
PKCS#1 v1.5) must be by a key of the trust file; `filepath` and `certfile` are not used. Beside "afr_ota" the document
may have _MEMBERS, as that of `ota`. statusDetails: those of `ota`, and of the AWS OTA agents (10.5).
"""

import binascii
import hashlib

from edgeagent.compat import Any, const, read_file
from edgeagent.errors import JobRejected, UpdateError
from edgeagent.jobs import ota
from edgeagent.ota import kinds

RESUME = True
_BLOCK = const(4096)
_MEMBERS = ("form", "rate", "trust", "window", "battery", "wait")


async def run(job: "Any") -> "dict[str, Any]":
    """Handler. As `ota`, with `reason` and `updatedBy`. Raises JobRejected naming the member, UpdateError."""
    image = _Image(job)
    kind, status = kinds.find(job.agent.port, kinds.name(job.id, job.execution, job.queued))
    by = job.agent.version
    if kind:
        by = status["previous_version"] or ""
    report = job.progress

    async def progress(percent: "int | None" = None, step: str = "", **details: "Any") -> "Any":
        details["step"] = step
        if step == "download":
            blocks = (image.size + _BLOCK - 1) // _BLOCK
            details["receive"] = "%d/%d" % ((percent or 0) * blocks // 100, blocks)
        elif step != "waiting":
            details["self_test"] = "active" if step == "trial" else "ready"
            details["updatedBy"] = _packed(by)
        return await report(percent, **details)

    job.progress = progress
    done = await ota.run(job, image.fetch, image.approve)
    done["reason"] = "accepted  v" + done["version"]  # two spaces, as the AWS agents say it
    done["updatedBy"] = "  v" + done["previous"]
    return done


def _packed(version: str) -> "str | None":
    """ "1.2.3" as 0x1020003: major, minor and build in 8, 8 and 16 bits. None for other versions."""
    try:
        major, minor, build = [int(part) for part in version.split(".")]
    except ValueError:
        return None
    return "0x%x" % (major << 24 | minor << 16 | build)


def _signature(text: "Any") -> bytes:
    """r||s of a base64 DER ECDSA signature. Raises ValueError, TypeError, IndexError."""
    der = binascii.a2b_base64(text)
    if der[0] != 0x30 or der[1] != len(der) - 2:
        raise ValueError
    at = 2
    raw = b""
    while at < len(der):
        size = der[at + 1]
        part = der[at + 2 : at + 2 + size]
        at += 2 + size
        if der[at - 2 - size] != 2 or not 0 < size < 34 or len(part) != size or (size == 33 and part[0]):
            raise ValueError
        raw += (b"\0" * 32 + part)[-32:]
    if len(raw) != 64:
        raise ValueError
    return raw


class _Image:
    """The single file of an update."""

    def __init__(self, job: "Any") -> None:
        """Makes the job's document one of `ota`. Raises JobRejected."""
        self._job = job
        member = "afr_ota"
        made: "Any" = {}
        try:
            document = job.document[member]
            member = "files"
            (entry,) = document[member]
            member = "protocols"
            if "MQTT" in document[member]:
                member = "streamname"
                made["stream"] = stream = document[member]
                for char in stream + "/" * (not 0 < len(stream) <= 128):
                    if char in "/+#":
                        raise ValueError
            elif "HTTP" in document[member]:
                member = "update_data_url"
                made["url"] = entry[member]
                if made["url"][:8] != "https://":
                    raise ValueError
            else:
                raise ValueError
            member = "fileid"
            self._file = entry[member]
            if type(self._file) is not int or not 0 <= self._file < 256:
                raise ValueError
            member = "filesize"
            self.size = entry[member]
            if type(self.size) is not int or self.size < 3:
                raise ValueError
            member = "sig-sha256-rsa"
            self._algorithm = 2  # of verify.ALGORITHMS
            if member in entry:
                self._signed = binascii.a2b_base64(entry[member])
            else:
                member = "sig-sha256-ecdsa"
                self._algorithm = 1
                self._signed = _signature(entry[member])
        except (LookupError, TypeError, ValueError):
            raise JobRejected("afr_ota: %s: missing, wrong or not supported" % member) from None
        # How long the parts are only the manifest says; until then their sum counts.
        made["artifact"] = {"envelope": 1, "blocks": 1, "payload": self.size - 2}
        for member in _MEMBERS:
            if member in job.document:
                made[member] = job.document[member]
        job.document = made

    async def fetch(
        self, job: "Any", stream: str, part: int, size: int, sink: "Any", have: "Any" = None, tick: "Any" = None
    ) -> None:
        """As ota.fetch, for a part of the file: in a stream its blocks do not begin where those of the stream do, so
        they have to come in order. Of the envelope the size is found out.
        """
        web = "url" in job.document
        if not part:
            head = bytearray()
            # An object is one file, whatever its number.
            await ota.fetch(
                job, stream, 0 if web else self._file, min(self.size, _BLOCK), lambda _, data: head.extend(data)
            )
            at = 0
            try:
                at = 6 + (head[4] << 8 | head[5])
                count = head[at]
                at += 1
                for _ in range(count):
                    at += 11 + (head[at + 9] << 8 | head[at + 10])
            except IndexError:
                pass  # `ota` refuses what is no envelope
            sink(0, head[:at])
            return
        if web:
            await ota.fetch(job, stream, part, size, sink, have, tick)
            return
        number = 0
        while have and number * _BLOCK < size and have[number >> 3] >> (number & 7) & 1:
            number += 1
        end = size
        for name in ota.PARTS[:part]:
            end += job.document["artifact"][name]
        start = end - size + number * _BLOCK
        held = bytearray()
        following = start // _BLOCK

        def take(at: int, data: "Any") -> "Any":
            nonlocal number, following
            if at != following:
                return True
            following += 1
            at *= _BLOCK
            held.extend(data[max(start - at, 0) : min(end - at, len(data))])
            while len(held) >= _BLOCK or (held and at + len(data) >= end):
                sink(number, bytes(held[:_BLOCK]))
                number += 1
                held[:_BLOCK] = b""
            return False

        # Up to the end of the part, in whole blocks of the stream.
        until = min((end + _BLOCK - 1) // _BLOCK * _BLOCK, self.size)
        before = (1 << following) - 1
        known = bytearray(before.to_bytes(until // _BLOCK // 8 + 1, "little"))
        await ota.fetch(job, stream, self._file, until, take, known, tick)

    async def approve(self, writer: "Any") -> None:
        """Before the new version may run. writer: has been filled. Raises UpdateError "signature" unless a trusted key
        signed the file, "file-hash", OSError.
        """
        from edgeagent.ota import verify

        root = self._job.agent.port.slots_dir
        whole = hashlib.sha256((read_file(root + ota.ENVELOPE, 8192) or b"").partition(b"\n")[2])
        with open(root + ota.HASHES, "rb") as f:  # noqa: ASYNC230  no other kind of file on boards
            data = f.read(512)
            while data:
                whole.update(data)
                data = f.read(512)
        await writer.finish(whole)  # wherever it has put the payload
        digest = whole.digest()
        for algorithm, public in verify.load_trust(self._job.agent.config.trust).keys.values():
            if algorithm == self._algorithm and await verify.verify(algorithm, public, digest, self._signed):
                return
        raise UpdateError("signature", "code signing")

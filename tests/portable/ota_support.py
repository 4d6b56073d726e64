# SPDX-License-Identifier: Apache-2.0
"""Artifacts made and signed with nothing but the standard library, for update tests on both runtimes."""

import asyncio
import binascii
import hashlib
import json
import os

from edgeagent import compat, p256
from edgeagent.errors import UpdateError
from edgeagent.ota import trial
from edgeagent.ota.manifest import MAGIC

BLOCK = 4096
RUNTIME = "micropython" if compat.MICROPYTHON else "cpython"
FACTS = {"board": "TEST", "chip": "c", "runtime": RUNTIME + " 1.29.0", "port": "test"}


def sha(data):
    return hashlib.sha256(data).digest()


def hexed(data):
    return binascii.hexlify(data).decode()


def without_room(act):
    """What `act()` returns while the file system is full, as far as trial.py writes to it."""
    real = trial.write_atomic

    def full(path, data):
        raise OSError(28)

    trial.write_atomic = full
    try:
        return act()
    finally:
        trial.write_atomic = real


def inverse(a, m):
    return pow(a, m - 2, m)


def multiple(k, x=p256.GX, y=p256.GY):
    """k·(x, y) in affine form, by double and add. A signer needs it; a device never does."""
    point = (0, 1, 0)
    for bit in range(255, -1, -1):
        point = p256.double(*point)
        if k >> bit & 1:
            point = p256.add(point[0], point[1], point[2], x, y)
    return affine(*point)


def affine(x, y, z):
    i = inverse(z, p256.P)
    return x * i * i % p256.P, y * i * i * i % p256.P


def plus(one, two):
    return affine(*p256.add(one[0], one[1], 1, two[0], two[1]))


def encode(x, y):
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")


class Key:
    algorithm = 1

    def __init__(self, secret=0x1234567890ABCDEF):
        self.secret = secret
        self.public = encode(*multiple(secret))
        self.id = sha(self.public)[:8]

    def sign(self, digest):
        k = int.from_bytes(sha(digest + b"nonce"), "big") % p256.N
        r = multiple(k)[0] % p256.N
        e = int.from_bytes(digest, "big")
        return encode(r, inverse(k, p256.N) * (e + r * self.secret) % p256.N)


KEY = Key()


def trust(keys=(KEY,), threshold=1, floor=0, **members):
    names = ("", "ecdsa-p256", "rsa-sha256", "lms-sha256")
    listed = [{"id": hexed(key.id), "algorithm": names[key.algorithm], "public": hexed(key.public)} for key in keys]
    document = {"threshold": threshold, "keys": listed, "security_version_floor": floor}
    document.update(members)
    return document


def pattern(size, seed=1):
    """Bytes that differ from block to block."""
    out = bytearray(size)
    for n in range(size):
        out[n] = (n * 7 + (n >> 8) * 31 + seed) & 255
    return bytes(out)


def envelope(manifest, keys=(KEY,)):
    parts = [MAGIC, len(manifest).to_bytes(2, "big"), manifest, bytes([len(keys)])]
    for key in keys:
        signature = key.sign(sha(manifest))
        parts.append(key.id + bytes([key.algorithm]) + len(signature).to_bytes(2, "big") + signature)
    return b"".join(parts)


class Artifact:
    """files: [(path, bytes)]. `document` is the manifest; change it, then `seal()` again."""

    def __init__(self, files, version="2.0.0", **members):
        self.contents = files
        self.payload = b"".join([content for _, content in files])
        pieces = [self.payload[at : at + BLOCK] for at in range(0, len(self.payload), BLOCK)]
        self.blocks = b"".join([sha(piece) for piece in pieces + [content for _, content in files]])
        self.document = {
            "format": 1,
            "name": "app",
            "version": version,
            "security_version": 1,
            "boards": ["TEST"],
            "runtime": RUNTIME,
            "expires": None,
            "files": [[path, len(content)] for path, content in files],
            "payload": {
                "size": len(self.payload),
                "sha256": hexed(sha(self.payload)),
                "block": BLOCK,
                "blocks_sha256": hexed(sha(self.blocks)),
            },
        }
        self.document.update(members)
        self.seal()

    def seal(self, keys=(KEY,)):
        self.manifest = json.dumps(self.document).encode()
        self.envelope = envelope(self.manifest, keys)
        self.digest = hexed(sha(self.manifest))
        return self

    def parts(self):
        return [self.envelope, self.blocks, self.payload]

    def job(self, stream="s1"):
        sizes = {"envelope": len(self.envelope), "blocks": len(self.blocks), "payload": len(self.payload)}
        return {"operation": "ota", "stream": stream, "artifact": sizes}


def refusal(test, code, action, *arguments, **named):
    """The text of the UpdateError, one with `code`, that an action ends with."""
    with test.assertRaises(UpdateError) as caught:
        action(*arguments, **named)
    test.assertEqual(caught.exception.code, code)
    return str(caught.exception)


async def turns_during(work):
    """How many turns another task has while a coroutine runs."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await work
    task.cancel()
    return turns


_MINE = os.urandom(6).hex()  # test processes share a working folder


def fresh(name):
    """An empty folder below the current one, on a device that has not booted."""
    trial.Running.slot = None
    path = "ota-test-%s-%s" % (_MINE, name)
    compat.remove_tree(path)
    os.mkdir(path)
    return path


def contents(folder):
    """{relative path: bytes} of all files below a folder."""
    found = {}
    for name in os.listdir(folder):
        path = folder + "/" + name
        if compat.is_dir(path):
            for inner, data in contents(path).items():
                found[name + "/" + inner] = data
        else:
            with open(path, "rb") as f:
                found[name] = f.read()
    return found


def fill(slot, files):
    """Put files into the slot at path `slot`: an index, and the contents in the store. files: {path: bytes}."""
    text = "\n"
    compat.make_dirs(slot[:-1] + "store")
    for path in sorted(files):
        name = hexed(sha(files[path])[:16])
        with open(slot[:-1] + "store/" + name, "wb") as f:
            f.write(files[path])
        text += "%s %d %s\n" % (path, len(files[path]), name)
    with open(slot + ".idx", "wb") as f:
        f.write(sha(text.encode())[:8] + text.encode())


def entries(slot):
    """[[path, bytes as text, name in the store]] of a slot with an index."""
    with open(slot + ".idx", "rb") as f:
        raw = f.read()
    if sha(raw[8:])[:8] != raw[:8]:
        raise ValueError("seal")
    return [line.split(" ") for line in raw[9:].decode().split("\n")[:-1]]


def slot_contents(slot):
    """{path: bytes} of the slot at path `slot`, whatever its form; {} if there is nothing."""
    if not compat.exists(slot + ".idx"):
        return contents(slot) if compat.exists(slot) else {}
    found = {}
    for path, size, name in entries(slot):
        with open(slot[:-1] + "store/" + name, "rb") as f:
            found[path] = f.read()
        if len(found[path]) != int(size):
            raise ValueError(path)
    return found


def damage(path, at=-1):
    """Flip one byte of a file."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    data[at] ^= 0x55
    with open(path, "wb") as f:
        f.write(data)

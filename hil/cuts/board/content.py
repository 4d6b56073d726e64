# SPDX-License-Identifier: Apache-2.0
"""What is on a device and what comes to it: made as the factory and a signer do, and read; on both runtimes."""

import binascii
import hashlib
import os

from edgeagent import compat
from edgeagent.ota import manifest, trial
from hil.cuts.board.device import sign

BLOCK = 4096


def pad(text, size):
    """`text` as bytes, filled up with a comment that differs from block to block."""
    data = bytearray(text.encode())
    line = 0
    while len(data) < size:
        data += b"# %d\n" % (line * 7919)
        line += 1
    return bytes(data[:size] if size else data)


def write(path, data):
    compat.make_dirs(path[: path.rfind("/")])
    with open(path, "wb") as f:
        f.write(data)
        compat.sync_file(f)


def write_all(folder, files):
    """files: {relative path: bytes}."""
    for name, data in files.items():
        write(folder + "/" + name, data)


def names(folder):
    """Relative paths of all files below a folder."""
    found = []
    for name in os.listdir(folder) if not compat.MICROPYTHON else ():
        if compat.is_dir(folder + "/" + name):
            found += [name + "/" + inner for inner in names(folder + "/" + name)]
        else:
            found.append(name)
    # One look at the folder instead of one at each file: littlefs reads its log for each.
    for name, kind in [entry[:2] for entry in os.ilistdir(folder)] if compat.MICROPYTHON else ():
        if kind & 0x4000:
            found += [name + "/" + inner for inner in names(folder + "/" + name)]
        else:
            found.append(name)
    return found


def contents(folder):
    """{relative path: bytes} of all files below a folder."""
    found = {}
    for name in names(folder):
        with open(folder + "/" + name, "rb") as f:
            found[name] = f.read()
    return found


def install(root, slot, files):
    """Fill a slot of the folder `root` as the factory does."""
    text = "\n"
    for name in sorted(files):
        content = hexed(sha(files[name])[:16])
        write(root + "/store/" + content, files[name])
        if not compat.MICROPYTHON:
            write("%s/%s/%s" % (root, slot, name), files[name])
        text += "%s %d %s\n" % (name, len(files[name]), content)
    write("%s/%s.idx" % (root, slot), sha(text.encode())[:8] + text.encode())


def indexed(root, slot):
    """{path: (bytes, name in the store)} of a slot with an index."""
    raw = compat.read_file("%s/%s.idx" % (root, slot), 8192) or b""
    text = raw[9:].decode() if sha(raw[8:])[:8] == raw[:8] else ""
    return {line.split()[0]: line.split()[1:] for line in text.split("\n")[:-1]}


def hexed(data):
    return binascii.hexlify(data).decode()


def sha(data):
    return hashlib.sha256(data).digest()


def envelope(text, keys):
    parts = [manifest.MAGIC, len(text).to_bytes(2, "big"), text, bytes([len(keys)])]
    for public in keys:
        signature = sign(public, sha(text))
        parts.append(sha(public)[:8] + bytes([1]) + len(signature).to_bytes(2, "big") + signature)
    return b"".join(parts)


def public_key(n):
    return sha(b"x%d" % n) + sha(b"y%d" % n)


def trust(version, keys, floor=0):
    listed = [{"id": hexed(sha(key)[:8]), "algorithm": "ecdsa-p256", "public": hexed(key)} for key in keys]
    return {"version": version, "threshold": 1, "keys": listed, "security_version_floor": floor}


def seal_slot(folder, slot, version, artifact, n):
    """The record that a slot of `folder` is full. artifact: id of what it came from. n: as in ota/slots.py."""
    known = {"complete": True, "artifact": artifact, "version": version, "security_version": 0, "n": n}
    trial.write_sealed("%s/%s.json" % (folder, slot), known)


def put_state(folder, **changes):
    """Change the state of a kind of update (ota/kinds.py), whose folder this is."""
    document = trial.status(folder)
    document.update(changes)
    trial.save(folder, document)

# SPDX-License-Identifier: Apache-2.0
"""Faults that people make in update code. Each is put into a copy of the agent, and a few cases must find it.

A mutant whose text is no longer in the agent fails loudly: it has to follow the code.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hil.cuts.plan import Task
from hil.cuts.run import ROOT, Tally, play


@dataclass(frozen=True)
class Mutant:
    """name; file below edgeagent, or boards/…; (old, new) texts, each old once in the file; tasks "scenario kind [[part/]parts]"."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]


def _m(name: str, file: str, *rest: str) -> Mutant:
    """rest: old, new, old, new, ..., tasks."""
    texts, tasks = rest[:-1], rest[-1]
    pairs = tuple((texts[n], texts[n + 1]) for n in range(0, len(texts), 2))
    return Mutant(name, file, pairs, tuple(task.strip() for task in tasks.split(",")))


_WRITE = '    with open(temporary, "wb") as f:\n        f.write(data)\n        sync_file(f)\n'
_RENAME = "        os.rename(temporary, path)\n"
_COUNT = '            document["boots"] += 1\n'
_STAGE_0 = "boards/common/stage0.py"
_TWO = '    for name in ("/state.json", "/state.bak"):'

MUTANTS = (
    # compat: the durable write
    _m("write-in-place", "compat.py", 'temporary = path + ".new"', "temporary = path", "steps linux, update linux"),
    _m("delete-before-rename", "compat.py", _RENAME, "        remove_tree(path)\n" + _RENAME, "steps cut, config cut"),
    _m(
        "rename-before-close",
        "compat.py",
        _WRITE,
        '    f = open(temporary, "wb")\n    f.write(data)\n',
        '    if posix:\n        posix.sync_dir(path.rpartition("/")[0])\n',
        '    f.close()\n    if posix:\n        posix.sync_dir(path.rpartition("/")[0])\n',
        "steps cut, update cut",
    ),
    _m("no-fsync", "compat.py", "        os.fsync(f.fileno())", "        pass", "steps linux, update linux"),
    _m("no-fsync-of-record", "compat.py", "        f.write(data)\n        sync_file(f)\n", "        f.write(data)\n", "steps linux, config linux"),
    _m("no-sync-of-folder", "compat.py", '        posix.sync_dir(path.rpartition("/")[0])', "        pass", "steps linux, update linux"),
    _m("new-folder-not-synced", "compat.py", "            posix.sync_dir(parent)\n", "            pass\n", "identity linux, many linux"),
    _m("failed-rename-ignored", "compat.py", "            raise  # else", "            pass  # else", "steps fault, config fault"),
    _m("done-rename-taken-for-failed", "compat.py", "if read_file(path, len(data)) != data:", "if True:", "update fault, config fault"),
    # trial: the state
    _m("seal-not-checked", "ota/trial.py", " if seal(raw[8:]) == raw[:8] else", " if raw else", "update flip 3, trust flip 3"),
    _m("seal-checks-length-only", "ota/trial.py", " if seal(raw[8:]) == raw[:8] else", " if len(raw) > 8 else", "update flip 3"),
    _m("backup-not-written", "ota/trial.py", '        write_sealed(root + "/state.bak", document)\n', "        pass\n", "update flip 9, rollback flip 9"),
    _m("backup-not-read", "ota/trial.py", _TWO, '    for name in ("/state.json",):', "update flip 9, rollback flip 9"),
    _m("older-copy-wins", "ota/trial.py", 'if document and document.get("n", 0) > best["n"]:', "if document:", "upgrade cut"),
    _m("full-flash-frees-nothing", "ota/trial.py", "            if full:\n", "            if False:\n", "full cut 40"),
    _m("newer-slot-without-state", "ota/trial.py", "return min(found)[1] if found", "return max(found)[1] if found", "eraser cut 40"),
    _m("what-was-rolled-back-runs", "ota/trial.py", """    elif slot and document["state"] != "rolled_back" and not filled""", "    elif slot and not filled", "lost cut 40"),
    _m("trial-boots-not-counted", "ota/trial.py", _COUNT, "", "hang cut 40"),
    _m("trial-boots-counted-in-memory", "ota/trial.py", "                save(root, document)\n            except OSError as error:", "                pass\n            except OSError as error:", "hang cut 40"),
    _m("uncounted-boot-runs-new", "ota/trial.py", '                counted = False\n                failed(root, "its boots cannot be counted: " + exc_text(error))', "                pass", "hang fault"),
    _m("one-boot-is-the-trial", "ota/trial.py", "MAX_BOOTS = 3", "MAX_BOOTS = 1", "update cut"),
    _m("trial-without-end", "ota/trial.py", 'document["boots"] < MAX_BOOTS', 'document["boots"] < 100', "hang cut 40"),
    _m("end-of-trial-not-stored", "ota/trial.py", '            failed(root, "interrupted: " + (", ".join(document["causes"]) or "the slot is empty"))\n', "            pass\n", "hang cut 40"),
    _m("rollback-not-stored", "ota/trial.py", "            save(root, document)\n            return True", "            return True", "rollback cut 9"),
    _m("rollback-keeps-the-pointer", "ota/trial.py", '    document["active"] = document.get("before", other(slot))\n', "", "rollback cut 9"),
    _m("rollback-without-reason", "ota/trial.py", '    document["reason"] = reason[:240]\n', "", "rollback cut 9"),
    _m("valid-when-started", "ota/trial.py", _COUNT, _COUNT + '            document["state"] = "confirmed"\n', "rollback cut 9"),
    _m("confirmed-in-memory", "ota/trial.py", '        document["floor"] = max(document["floor"], document["security_version"])\n        save(root, document)\n', '        document["floor"] = max(document["floor"], document["security_version"])\n', "update cut 9"),
    _m("floor-after-the-save", "ota/trial.py", '        document["floor"] = max(document["floor"], document["security_version"])\n        save(root, document)\n', '        save(root, document)\n        document["floor"] = max(document["floor"], document["security_version"])\n', "update cut 9"),
    _m("unproven-slot-runs", "ota/trial.py", '    elif slot and document["state"]', '    elif document["state"]', "first cut"),
    # slots
    _m("fills-the-running-slot", "ota/slots.py", "        slot = trial.other(active)\n        path = ", '        slot = active or "a"\n        path = ', "update cut, update linux"),
    _m("valid-when-activated", "ota/slots.py", '"state": "trial",', '"state": "confirmed",', "rollback cut 9"),
    _m("old-boot-count", "ota/slots.py", '                "boots": 0,\n', "", "again cut"),
    _m("floor-forgotten", "ota/slots.py", '"security_version": known.get("security_version", 0)', '"security_version": 0', "update cut 9"),
    _m("activated-in-memory", "ota/slots.py", "        trial.save(root, document)\n\n    def writer", "        return\n\n    def writer", "update cut 9"),
    _m("state-not-begun", "ota/slots.py", '        if lost or not document["n"]:\n', "        if lost:\n", "first cut, first linux"),
    _m("slot-made-without-a-sync", "ota/slots.py", '            make_dirs(path if self.PLAIN else root + "/store")\n', '            exists(root + "/store") or __import__("os").mkdir(root + "/store")\n', "first linux, upgrade linux"),
    _m("slot-half-wiped-and-complete", "ota/slots.py", "            self.complete(None, None, 0, False)\n            for end", "            for end", "upgrade cut 4"),
    _m("back-to-half-a-slot", "ota/slots.py", 'if not known["complete"] or unproven or', "if unproven or", "rollback-job-half cut"),
    _m("previous-version-not-told", "ota/slots.py", '"previous_version": previous or trial.info(root, active).get("version")', '"previous_version": None', "update cut 40"),
    # the store
    _m("store-loses-what-runs", "ota/index.py", " and not used(slot, name)", "", "shared cut 9"),
    _m("store-is-never-cleaned", "ota/index.py", "        clean(writer.slot)\n", "", "again cut 9"),
    _m("name-taken-for-complete", "ota/index.py", "if not bad and writer.matches(one, manifest.blocks + index):", "if not bad:", "many cut 9"),
    _m("not-read-back-before-it-is-complete", "ota/index.py", "    await _read_back(writer, True, whole)\n", "", "faded cut 40"),
    _m("shared-file-written", "ota/writer.py", "                    if not flags & COMPLETE:\n", "                    if True:\n", "shared cut 9"),
    _m("shared-file-written-after-a-restart", "ota/writer.py", "                    if not flags & COMPLETE:\n", "                    if not flags & COMPLETE or self.have[0] & 1:\n", "shared cut"),
    _m(
        "decayed-configuration-put-back",
        "ota/safety.py",
        "words = trial.unseal(read_file(root + KEPT, 9000)).split",
        "words = (read_file(root + KEPT, 9000) or b'')[8:].split",
        "rollback-job-bad flip 16",
    ),
    _m("decayed-file-written-in-place", "ota/index.py", "            _flag(writer, number, SECOND)\n", "            pass\n", "decayed cut 9"),
    _m("index-not-checked", "ota/trial.py", "if found.digest()[:8] == seal:", "if True:", "shared flip 3"),
    _m("index-not-synced", "ota/index.py", "        compat.sync_file(f)\n", "", "update linux, many linux"),
    _m("links-not-synced", "posix.py", "    for one in sorted(made):\n        sync_dir(one)\n", "", "update linux, many linux"),
    # reads that go wrong
    _m("misread-index-believed", "ota/index.py", " or seal.digest()[:8] != first", "", "rollback misread"),
    _m("unread-index-taken-for-none", "ota/index.py", "return error.errno != _ENOENT", "return False", "rollback misread"),
    _m("unread-way-back-given-up", "ota/trial.py", '    document["active"] = document.get("before", other(slot))\n', '    document["active"] = document["before"] if filled(root, document["before"]) else None\n', "            if last:\n                raise\n", "            return False\n", "rollback read 3"),
    # safety
    _m("escape-does-not-roll-back", "ota/safety.py", "    for kind in _KINDS:\n        try:\n", "    for kind in _KINDS[:2]:\n        try:\n", "rollback cut 9"),
    # stage 0, and updates of the agent
    _m("agent-boot-not-counted", _STAGE_0, 'return [state["active"]] if save(state) else rest', 'return [state["active"]]', "agent-hangs cut 40"),
    _m("agent-counted-after-the-import", _STAGE_0, 'return [state["active"]] if save(state) else rest', 'return [state["active"]]', "            run = load(slot)\n", "            run = load(slot)\n            save(state)\n", "agent-hangs cut 40"),
    _m("uncounted-boot-runs-the-new-agent", _STAGE_0, "if save(state) else rest", "if save(state) or True else rest", "agent-hangs fault"),
    _m("agent-trial-without-end", _STAGE_0, 'state["boots"] < MAX_TRIES', 'state["boots"] < 100', "agent-hangs cut 40"),
    _m("no-factory-agent", _STAGE_0, 'if state.get("before") else [None]', 'if state.get("before") else []', "agent cut 40"),
    _m("agent-state-not-sealed", _STAGE_0, "if hashlib.sha256(raw[8:]).digest()[:8] == raw[:8]:", "if raw:", "agent-again flip 3"),
    _m("agent-state-of-one-copy", _STAGE_0, 'max(read("state.json"), read("state.bak"), key=lambda copy: copy.get("n", 0))', 'read("state.json")', "agent-again flip 9"),
    _m("agent-given-up-in-memory", _STAGE_0, '    save(state)\n\n\ndef count', "\n\n\ndef count", "agent-raises cut 40"),
    _m("given-up-agent-stays-active", _STAGE_0, '{"active": state["before"], "state"', '{"state"', "agent-hangs cut 40"),
    _m("agent-given-up-without-a-reason", _STAGE_0, ', "reason": reason[:240]}', "}", "agent-raises cut 40"),
    _m("half-an-agent-stays-loaded", _STAGE_0, "                del sys.modules[name]\n", "                pass\n", "agent-decayed cut 40"),
    _m("failures-of-the-active-agent-only", _STAGE_0, 'slot in (state.get("active"), state.get("before"))', 'slot == state.get("active")', "agents-worn cut 40"),
    _m("factory-agent-never-reached", _STAGE_0, "min(state.get(\"fails\", 0) // MAX_TRIES, len(rest) - 1)", 'state.get("fails", 0) >= MAX_TRIES', "agents-worn cut 40"),
    _m("failures-outlive-going-back", "ota/slots.py", '                "fails": 0,', "                #", "agent-back cut 9"),
    _m("overwrites-the-agent-that-runs", "ota/generations.py", "        if slot != active:\n", "        if False:\n", "agent-decayed cut 9"),
    _m("way-back-to-the-agent-that-is-overwritten", "ota/generations.py", '        if slot != active or document.get("before"):\n', "        if slot != active:\n", "agent-again cut 9"),
    _m("agent-state-written-once", _STAGE_0, 'for name in ("state.json", "state.bak"):\n            with', 'for name in ("state.json",):\n            with', "agent-raises flip 64"),
    _m("confirms-another-agent", "ota/slots.py", 'return self.running() in (None, status["active"])', "return True", "agent fault"),
    # images of a Linux machine
    _m("image-request-not-synced", "jobs/image.py", "submit(os.fsync, self._file.fileno())", "submit(int)", "image linux"),
    _m("image-kernel-ignored", "jobs/image.py", "            have = max(have - _UNSURE, 0)\n", "            pass\n", "image linux"),
    _m("image-kernel-noted-too-early", "jobs/image.py", "        file.truncate(have)\n        job.checkpoint(kernel=kernel)  # not", "        job.checkpoint(kernel=kernel)\n        file.truncate(have)\n        # not", "image-twice linux 5/8"),
    _m("image-installed-before-its-record", "jobs/image.py", "        part.begin(job, system, version, bundle=what, path=path)\n", '        await part.rauc.install(path, _tenths(job, "install", version))\n        part.begin(job, system, version, bundle=what, path=path)\n', "image linux"),
    _m("image-installed-before-it-is", "image.py", '            await self.rauc.install(record["path"], tick)\n', '            record["installed"] = True\n            trial.save(self.root, record)\n            await self.rauc.install(record["path"], tick)\n', "image linux"),
    _m("image-bundle-left", "jobs/image.py", 'remove_tree(part.root + "/bundle")', "pass", "image linux"),
    _m("image-settled-before-the-marks", "image.py", "        if system and system.booted == before:\n", '        if system and system.booted == before:\n            record["settled"] = True\n            trial.save(self.root, record)\n', "image-stuck linux, image-sick linux"),
    _m("image-boot-not-counted", "image.py", '        record["boots"] += 1\n', "", "image linux"),
    _m("image-confirmed-but-not-good", "image.py", '        self.rauc.mark("good", "booted")\n        trial.confirm', "        trial.confirm", "image linux"),
    _m("image-long-request-not-synced", "jobs/image.py", "if self._blocks == ranges.PART // 2:", "if False:", "image-whole linux"),
    _m("image-back-before-its-record", "jobs/image.py", "        part.begin(job, system, version, part.kept(system))\n", '        kept = part.kept(system)\n        part.rauc.mark("active", kept)\n        part.begin(job, system, version, kept)\n', "image-back linux"),
    _m("image-back-to-anything", "image.py", " or written != system.written(slot)", "", "image-back-lost linux"),
    _m("image-back-marked-bad-unseen", "image.py", 'bad = _tried(record) if record["kept"] else record', "bad = record", "image-back-stuck linux"),
    _m("image-back-blamed-for-a-cut", "image.py", 'if system and record["kept"] and not record["boots"]:', "if False:", "image-back-stuck linux"),
    _m("image-back-forgets-what-was-left", "image.py", "left=_left(record),", "left=(None, None),", "image-back-ended linux"),
    _m("image-back-stays-next", "image.py", '                await asyncio.to_thread(self.rauc.mark, "active", before)', "                pass", "image-back-stuck linux"),
    _m("image-back-confirmed-before-good", "image.py", '        self.rauc.mark("good", "booted")\n        trial.confirm(self.root)\n', '        trial.confirm(self.root)\n        self.rauc.mark("good", "booted")\n', "image-back-unmarked linux"),
    # firmware
    _m("firmware-boots-before-its-record", "ota/partition.py", "        trial.save(self.root, document)\n        if not self.select():", "        done = self.select()\n        trial.save(self.root, document)\n        if not done:", "firmware cut"),
    _m("firmware-valid-when-started", "ota/partition.py", "                if runs and record[4] == _PENDING:\n", "                if runs and record[4] == _PENDING:\n                    self.mark()\n", "firmware-brief cut"),
    _m("firmware-kept-after-its-end", "ota/trial.py", '        target.drop(document["active"])', "        target", "firmware-sick cut, firmware-sick double, firmware-sick fault"),
    _m("firmware-not-blamed-for-a-crash", "ota/safety.py", "    for kind in _KINDS:\n        try:\n", '    for kind in ("/agent", ""):\n        try:\n', "firmware-crash cut 40"),
    _m("firmware-erases-what-runs", "ota/partition.py", "        self.other.ioctl(6, number)\n", "        self.running.ioctl(6, number)\n", "firmware cut"),
    _m("firmware-mark-not-read-back", "ota/partition.py", "        if self.selected()[1:] != (self.own, _VALID):\n", "        if problem:\n", "firmware fault"),
    _m("firmware-not-marked", "ota/partition.py", "        problem = self.mark()\n        if self.selected()[1:] != (self.own, _VALID):\n", "        problem = None\n        if problem:\n", "firmware cut 9"),
    _m("firmware-trusts-what-is-there", "ota/partition.py", "            if self.matches(block, number):\n", "            if True:\n", "firmware cut 9"),
    _m("firmware-tried-for-ever", "ota/partition.py", 'if status["boots"] > trial.MAX_BOOTS:', 'if status["boots"] > 99:', "firmware-dead cut 9"),
    _m("firmware-tried-once", "ota/partition.py", 'if status["boots"] > trial.MAX_BOOTS:', 'if status["boots"] > 1:', "firmware cut"),
    _m("firmware-tries-in-memory", "ota/partition.py", "            trial.save(self.root, status)\n", "", "firmware-dead cut 9"),
    _m("firmware-taken-for-the-new-one", "ota/partition.py", 'runs = bool(self.own == status["active"])', "runs = True", "firmware-dead cut 9"),
    _m("firmware-floor-forgotten", "ota/partition.py", "security_version=self.floor", "security_version=0", "firmware cut 9"),
    _m("firmware-taken-for-another", "ota/partition.py", "get(self.own), self.next: self.new}", "get(self.own)}", "firmware-delta cut 9"),
    _m("firmware-patched-by-what-it-fills", "ota/partition.py", "self.running.readblocks(0, view, at)", "self.other.readblocks(0, view, at)", "firmware-delta cut 9"),
    # delta
    _m("patch-of-something-else", "ota/delta.py", "if patch.read(_HEADER)[5:] != ids or patch.seek(0, 2) > total:", "if patch.seek(0, 2) > total:", "delta cut 9"),
    _m("patch-not-synced", "ota/delta.py", "            compat.sync_file(patch)\n", "", "delta cut"),
    _m("patch-begun-anew", "ota/delta.py", 'open(path, "r+b" if compat.exists(path) else "w+b")', 'open(path, "w+b")', "delta cut 9"),
    _m("patch-left-for-its-whole-size", "ota/delta.py", "if total - there < missing:", "if total < missing:", "delta cut"),
    _m("patch-left-behind", "jobs/ota.py", "= (PATCH, PATCH + \".why\", ENVELOPE, HASHES)", "= (ENVELOPE, HASHES)", "delta cut 9"),
    _m("bad-patch-fails-the-job", "ota/delta.py", "        reason = compat.exc_text(error)\n", "        raise\n", "delta-bad cut 9"),
    _m("bad-patch-forgotten", "jobs/ota.py", '                        write_atomic(root + PATCH + ".why", ("%s\\n%s" % (own, reason)).encode())', "                        pass", "delta-bad cut"),
    _m("bad-patch-gone-before-it-is-noted", "jobs/ota.py", "                    # Before the patch goes: after a reset it must not be fetched again.\n", "                    _tidy(root, (PATCH,))\n", "delta-bad cut"),
    # journal, runner
    _m("journal-not-written", "jobs/journal.py", '            write_atomic(self._path, b"%d\\n" % binascii.crc32(body) + body)', "            pass", "steps cut 9"),
    _m("journal-in-place", "jobs/journal.py", '            write_atomic(self._path, b"%d\\n" % binascii.crc32(body) + body)', '            with open(self._path, "wb") as f:\n                f.write(b"%d\\n" % binascii.crc32(body) + body)', "steps linux"),
    _m("journal-not-checked", "jobs/journal.py", 'if head == b"%d" % binascii.crc32(body):', "if body:", "steps flip"),
    _m("journal-not-removed", "jobs/journal.py", "            os.remove(self._path)", "            pass", "steps cut 9"),
    _m("journal-gone-before-the-report", "jobs/runner.py", '        details = record["data"]\n        status = record["status"]\n', '        self._journal.clear()\n        details = record["data"]\n        status = record["status"]\n', "steps cut, rollback cut"),
    _m("journal-gone-with-the-restart", "jobs/runner.py", '        self.agent.port.reset()\n        raise JobFailed("the device did not restart")', '        self.runner._journal.clear()\n        self.agent.port.reset()\n        raise JobFailed("the device did not restart")', "steps cut 9"),
    _m("checkpoint-in-memory", "jobs/runner.py", '        self.runner.keep(self, "IN_PROGRESS", merged)\n', "", "steps cut 9"),
    _m("begun-again-after-a-restart", "jobs/runner.py", "                elif not found[1]:\n", "                elif False:\n", "once cut"),
    _m("trial-outlives-its-job", "jobs/runner.py", "                    safety.cancel(self.agent.port, record)\n", "", "ended cut"),
    _m("ended-job-keeps-its-trial", "ota/handover.py", '            reason = "the service ended the job"\n    trial.failed(target.root, reason)\n', '            return\n    trial.failed(target.root, reason)\n', "ended cut 40"),
    _m("trial-without-a-restart", "ota/handover.py", '        trial.failed(target.root, "no restart: %s" % error)\n', "", "stuck cut 40"),
    _m("tries-not-counted", "ota/handover.py", '    job.checkpoint(tries=job.data.get("tries", 0) + 1)\n', "", "eraser cut 40"),
    _m("confirmed-without-the-service", "ota/handover.py", "            accepted = False\n", "            accepted = True\n", "update cut 40"),
    _m("refused-download-is-left", "jobs/ota.py", "        except UpdateError:\n            _tidy(root)\n            raise\n", "        except UpdateError:\n            raise\n", "faded cut 40"),
    _m("failed-journal-ignored", "jobs/journal.py", '            raise JobFailed("journal: " + exc_text(error)) from None', "            pass", "steps fault"),
    # going back by a job
    _m("gate-not-asked", "ota/handover.py", '    await gate.wait(job, "restart", version, expires)\n', "", "rollback-job cut 9"),
    _m("configuration-not-kept", "ota/handover.py", "            safety.keep(agent.port.slots_dir, agent.config_path, own)\n", "            pass\n", "rollback-job-bad cut 9"),
    _m("configuration-not-put-back", "ota/safety.py", '        put_back(root, status["job"])\n', "        pass\n", "rollback-job-bad cut 9"),
    _m("copy-of-the-configuration-gone-first", "ota/safety.py", "            if read_file(words[1].decode(), 8192) != words[2]:", "            remove_tree(root + KEPT)\n            if read_file(words[1].decode(), 8192) != words[2]:", "rollback-job-bad cut"),
    _m("copy-of-the-configuration-stays", "ota/safety.py", "            remove_tree(root + KEPT)\n    except", "    except", "rollback-job-bad cut 40"),
    _m("back-to-what-never-ran", "ota/slots.py", 'known.get("n", 0) >= status["n"] or ', "", "rollback-job-lost cut 9"),
    _m("firmware-back-whatever-is-there", "ota/partition.py", '            or await self.digest(found[0]) != status["kept"]\n', "", "firmware-back-lost cut 9"),
    _m("firmware-back-of-what-is-filled", "ota/partition.py", "kept = await self.digest(self.running)", "kept = await self.digest(self.other)", "firmware-back cut 9"),
    _m("firmware-back-without-its-level", "ota/partition.py", 'levels={self.own: document.get("levels", {}).get(self.own, 0)', "levels={self.own: 0", "firmware-back cut 9"),
    _m("firmware-back-taken-for-another", "ota/partition.py", 'self.complete(status["artifacts"].get(before)', 'self.complete(status["artifacts"].get(self.own)', "firmware-back cut 9"),
    _m("firmware-back-without-a-trial", "ota/partition.py", '        return self.version(None, self.other), self.floor', '        self.other.set_boot()\n        return self.version(None, self.other), self.floor', "firmware-back cut, firmware-back-sick cut"),
    _m("firmware-back-kept-after-its-end", "ota/trial.py", '        target.drop(document["active"])', "        target", "firmware-back-sick cut, firmware-back-sick double 6"),
    # identity
    _m("identity-in-place", "identity.py", '("b" if record.get("folder") == self.root + "a" else "a")', '"a"', "identity cut"),
    _m("identity-record-first", "identity.py", '        compat.write_atomic(folder + "/cert", cert)\n        compat.write_atomic(folder + "/key", key, True)\n', "", "        self._keep(record)\n\n    def state", '        self._keep(record)\n        compat.write_atomic(folder + "/cert", cert)\n        compat.write_atomic(folder + "/key", key, True)\n\n    def state', 'if self._digest(record) == record["sha256"]:', "if True:", "identity cut"),
    _m("identity-not-checked", "identity.py", 'if self._digest(record) == record["sha256"]:', "if True:", "identity flip 9"),
    _m("identity-key-not-checked", "identity.py", 'for name in ("/cert", "/key"):', 'for name in ("/cert",):', "identity flip 9"),
    _m("identity-trial-not-ended", "identity.py", '                    record.pop("trial")\n                self._keep(record)', '                    record.pop("trial")', "identity cut 9"),
    _m("identity-older-wins", "identity.py", 'if usable and record["count"] > found.get("count", 0):', "if usable and not found:", "identity cut 9"),
    # trust, configuration
    _m("trust-without-a-copy", "jobs/trust.py", '(path + ".bak", path)', "(path,)", "trust flip 9"),
    _m("trust-copy-not-read", "ota/verify.py", 'for name in (path, path + ".bak"):', "for name in (path,):", "trust flip 9"),
    _m("trust-drops-the-floor", "jobs/trust.py", '            new.floor = max(new.floor, trust.floor, trial.status(agent.port.slots_dir)["floor"])\n', "", "trust cut 9"),
    _m("trust-kept-in-memory", "jobs/trust.py", "            _store(path, new)\n            trust = new", "            trust = new", "trust cut 9"),
    _m("config-in-place", "jobs/config.py", "    write_atomic(path, text)\n", '    with open(path, "wb") as f:\n        f.write(text)\n', "config linux"),
    _m("config-deleted-first", "jobs/config.py", "    write_atomic(path, text)\n", '    __import__("os").remove(path)\n    write_atomic(path, text)\n', "config cut"),
    _m("config-not-written", "jobs/config.py", "    write_atomic(path, text)\n", "", "config cut"),
)  # fmt: skip
NAMES = {mutant.name: mutant for mutant in MUTANTS}
SAMPLE = (
    "rename-before-close",
    "no-sync-of-folder",
    "trial-boots-not-counted",
    "valid-when-started",
    "identity-in-place",
    "firmware-mark-not-read-back",
)


def overlay(mutant: Mutant, folder: Path, agent: Path = ROOT) -> None:
    """Make folder/edgeagent: links to the real files, but the changed one. Raises ValueError if a text is not there."""
    path = Path(mutant.file) if mutant.file.startswith("boards/") else Path("edgeagent", mutant.file)
    text = (agent / path).read_text()
    for old, new in mutant.changes:
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {mutant.file} has {text.count(old)} times {old!r}")
        text = text.replace(old, new)
    for depth in range(1, len(path.parts)):
        below = Path(*path.parts[:depth])
        (folder / below).mkdir(parents=True)
        for entry in (agent / below).iterdir():
            if entry.name not in (path.parts[depth], "__pycache__"):
                (folder / below / entry.name).symlink_to(entry)
    if path.parts[0] != "edgeagent":
        (folder / "edgeagent").symlink_to(agent / "edgeagent")
    (folder / path).write_text(text)


@contextmanager
def changed(name: str) -> Iterator[Path]:
    """A folder whose `edgeagent` has the fault."""
    with tempfile.TemporaryDirectory() as folder:
        overlay(NAMES[name], Path(folder))
        yield Path(folder)


def tasks_of(mutant: Mutant) -> list[Task]:
    found = []
    for text in mutant.tasks:
        scenario, kind, *rest = text.split()
        part, _, parts = rest[0].rpartition("/") if rest else ("", "", "1")
        found.append(Task(scenario, kind, int(part or 0), int(parts), limit=1))
    return found


def hunt_one(name: str, agent: Path = ROOT) -> tuple[Tally, str]:
    """Play the tasks of one mutant until one case finds it; what finds it, or ""."""

    total = Tally()
    with tempfile.TemporaryDirectory() as folder:
        overlay(NAMES[name], Path(folder), agent)
        for task in tasks_of(NAMES[name]):
            tally = play(task.members(), over=Path(folder), silence_s=8.0)
            total.add(tally)
            for case, problem in tally.bad:
                if not problem.startswith("the process ended"):  # which proves nothing about the agent
                    return total, f"{case}: {problem}"
    return total, ""


def hunt(console: Console, names: list[str], jobs: int, as_json: bool) -> int:
    """All mutants, or those named; 1 if one of them lives."""

    unknown = [name for name in names if name not in NAMES]
    if unknown:
        console.print(f"no such mutant: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    chosen = names or list(NAMES)
    table = Table("mutant", "file", "cases", "found by")
    living = []
    with ThreadPoolExecutor(jobs) as pool:
        for name, (tally, proof) in zip(chosen, pool.map(hunt_one, chosen), strict=True):
            if not proof:
                living.append(name)
            line = " ".join(proof.split())
            table.add_row(name, NAMES[name].file, f"{tally.cases:,}", line[:110] or "[red]lives")
    console.print(table)
    console.print(f"{len(chosen) - len(living)} of {len(chosen)} mutants found")
    if as_json:
        print(json.dumps({"mutants": len(chosen), "living": living}))
    return 1 if living else 0

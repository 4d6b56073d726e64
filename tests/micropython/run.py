# SPDX-License-Identifier: Apache-2.0
"""Run one tests/portable module on MicroPython: `micropython run.py MODULE`. A line a test; exits 1 on failure."""

import asyncio
import gc
import sys
import unittest


def run(module_name):
    module = __import__(module_name)
    passed = failed = skipped = 0
    for name in sorted(dir(module)):
        case = getattr(module, name)
        if not isinstance(case, type) or not issubclass(case, unittest.TestCase) or case is unittest.TestCase:
            continue
        for method in sorted(dir(case)):
            if not method.startswith("test"):
                continue
            # Tasks that the test before has cancelled and left would live on, with all that they refer to.
            asyncio.new_event_loop()
            asyncio.core.cur_task = None
            gc.collect()
            instance = case()
            label = "%s.%s" % (name, method)
            try:
                instance.setUp()
                try:
                    getattr(instance, method)()
                finally:
                    instance.tearDown()
                passed += 1
                print("ok   " + label)
            except unittest.SkipTest as reason:
                skipped += 1
                print("skip %s: %s" % (label, reason))
            except Exception as error:
                failed += 1
                print("FAIL " + label)
                sys.print_exception(error)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed or not passed else 0


sys.exit(run(sys.argv[1]))

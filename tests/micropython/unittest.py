# SPDX-License-Identifier: Apache-2.0
"""The part of unittest that tests/portable uses, for MicroPython (which has none). Same names, same meaning."""


class SkipTest(Exception):
    pass


class _Raises:
    def __init__(self, kind):
        self.kind = kind
        self.exception = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError("%s was not raised" % self.kind.__name__)
        if not issubclass(kind, self.kind):
            return False
        self.exception = error
        return True


class _SubTest:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return False


class TestCase:
    def setUp(self):
        pass

    def tearDown(self):
        pass

    def fail(self, message=""):
        raise AssertionError(message)

    def subTest(self, *args, **kwargs):
        return _SubTest()

    def skipTest(self, reason):
        raise SkipTest(reason)

    def assertTrue(self, value, message=None):
        if not value:
            raise AssertionError(message or "%r is not true" % (value,))

    def assertFalse(self, value, message=None):
        if value:
            raise AssertionError(message or "%r is not false" % (value,))

    def assertEqual(self, first, second, message=None):
        if not first == second:
            raise AssertionError(message or "%r != %r" % (first, second))

    def assertNotEqual(self, first, second, message=None):
        if first == second:
            raise AssertionError(message or "%r == %r" % (first, second))

    def assertIs(self, first, second, message=None):
        if first is not second:
            raise AssertionError(message or "%r is not %r" % (first, second))

    def assertIsNone(self, value, message=None):
        self.assertIs(value, None, message)

    def assertIsNotNone(self, value, message=None):
        if value is None:
            raise AssertionError(message or "unexpectedly None")

    def assertIn(self, member, container, message=None):
        if member not in container:
            raise AssertionError(message or "%r not in %r" % (member, container))

    def assertNotIn(self, member, container, message=None):
        if member in container:
            raise AssertionError(message or "%r in %r" % (member, container))

    def assertIsInstance(self, value, kind, message=None):
        if not isinstance(value, kind):
            raise AssertionError(message or "%r is not a %r" % (value, kind))

    def assertGreater(self, first, second, message=None):
        if not first > second:
            raise AssertionError(message or "%r <= %r" % (first, second))

    def assertGreaterEqual(self, first, second, message=None):
        if not first >= second:
            raise AssertionError(message or "%r < %r" % (first, second))

    def assertLess(self, first, second, message=None):
        if not first < second:
            raise AssertionError(message or "%r >= %r" % (first, second))

    def assertLessEqual(self, first, second, message=None):
        if not first <= second:
            raise AssertionError(message or "%r > %r" % (first, second))

    def assertRaises(self, kind, function=None, *args, **kwargs):
        context = _Raises(kind)
        if function is None:
            return context
        with context:
            function(*args, **kwargs)
        return None

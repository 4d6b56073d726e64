# SPDX-License-Identifier: Apache-2.0
"""Short names in board files: a program says the same with them, and what a caller can know keeps its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet import devices
from edgefleet.artifacts.build import compile_file
from tests.device.test_link import PACKAGE, linked, run, save, write

MAIN = {"main": "edgeagent.app"}


def both(folder: Path, files: dict[str, str], **options: object) -> tuple[str, str]:
    """(what main() of `app` returns, all linked sources), after a check that the modules as written return the same."""
    files = {"__init__": PACKAGE, **files}
    plain = run(write(folder / "plain", files), "from edgeagent.app import main\nprint(main())")
    bundles = linked(folder / "source", files, **options)
    found = run(save(folder / "linked", bundles), "from edgeagent import main\nprint(main())")
    assert found == plain, bundles
    return found.strip(), "".join(f"--- {name}\n{text}" for name, text in bundles.items())


# --- parameters: programs that do the same, with what must and must not be in the linked source

SAME = {
    "plain": ("def f(size, path=3):\n    return size + path\ndef main():\n    return f(1), f(1, 2)\n", "a: 'size'"),
    "assigned, deleted": (
        "def f(size):\n    size += 1\n    found = size\n    del size\n    return found\ndef main():\n    return f(1)\n",
        "a: 'size'",
    ),
    "closure": (
        "def f(size):\n    def g():\n        return size + 1\n    return g\ndef main():\n    return f(1)()\n",
        "a: 'size'",
    ),
    "nonlocal": (
        "def f(size):\n    def g():\n        nonlocal size\n        size += 1\n        return size\n"
        "    return g() + size\ndef main():\n    return f(1)\n",
        "f(size)",
    ),
    "hidden by an inner parameter": (
        "def f(size):\n    def g(size):\n        return size * 2\n    return g(size + 1), size\n"
        "def main():\n    return f(1)\n",
        "a: 'size'",
    ),
    "inner local takes the letter": (
        "def f(size):\n    def g():\n        a = 5\n        return a + size\n    return g()\n"
        "def main():\n    return f(1)\n",
        "b: 'size'",
    ),
    "global takes the letter": (
        "a = [7]\ndef f(size):\n    return a[0] + size\ndef main():\n    a[0] += 1\n    return f(1)\n",
        "b: 'size'",
    ),
    "global of the same name": (
        "size = [9]\ndef g():\n    return size[0]\ndef f(size):\n    return size + g()\ndef main():\n    return f(1)\n",
        "size",
    ),
    "global statement inside": (
        "total = 4\ndef f(size):\n    def g():\n        global total\n        total += 1\n        return total\n"
        "    return g() + size\ndef main():\n    return f(1)\n",
        "a: 'size'",
    ),
    "lambda": (
        "def f(size):\n    return lambda size, other=size: (size, other)\ndef main():\n    return f(1)(2)\n",
        "lambda a, b=a",
    ),
    "comprehension": (
        "def f(size):\n    return [size for size in range(size)], {n: size for n in 'x'}, sum(size for _ in range(2))\n"
        "def main():\n    return f(3)\n",
        "a: 'size'",
    ),
    "walrus in a comprehension": (
        "def f(size):\n    found = [size := n for n in (4, 5)]\n    return found, size\ndef main():\n    return f(1)\n",
        "a: 'size'",
    ),
    "default of an inner function": (
        "def f(size):\n    def g(size=size):\n        return size\n    return g()\ndef main():\n    return f(8)\n",
        "a: 'size'",
    ),
    "class body": (
        "def f(size):\n    class C:\n        def get(self):\n            return size\n"
        "    return C().get()\ndef main():\n    return f(1)\n",
        "f(size)",
    ),
    "except": (
        "def f(size):\n    try:\n        [][0]\n    except IndexError as size:\n        return str(size)\n"
        "def main():\n    return f(1)\n",
        "f(size)",
    ),
    "stars": (
        "def f(first, *others, last=5):\n    return first, others, last\ndef main():\n    return f(1, 2, 3, *[4])\n",
        "a: 'first', *c: 'others', b: 'last'=5",
    ),
    "keywords of its own": (
        "def f(first, **others):\n    return first, sorted(others)\ndef main():\n    return f(1, a=2, b=3)\n",
        "f(first, **others)",
    ),
    "overriding": (
        "class A:\n    def f(self, size):\n        return size\nclass B(A):\n    def f(self, path):\n"
        "        return super().f(path) + 1\ndef main():\n    return B().f(1), A().f(2)\n",
        "a: 'path'",
    ),
    "generator and async": (
        "import asyncio\ndef g(count):\n    while count:\n        count -= 1\n        yield count\n"
        "async def f(limit):\n    return list(g(limit))\ndef main():\n    return asyncio.run(f(3))\n",
        "a: 'limit'",
    ),
}


@pytest.mark.parametrize(("source", "inside"), SAME.values(), ids=SAME)
def test_a_program_says_the_same_with_short_parameters(tmp_path: Path, source: str, inside: str) -> None:
    _, text = both(tmp_path, {"app": source})
    assert inside in text


KEPT = {
    "keyword": "def f(size):\n    return size\ndef main():\n    return f(size=1)\n",
    "keyword of something else": "def g(**k):\n    return k\ndef f(size):\n    return size\n"
    "def main():\n    return f(1), g(size=2)\n",
    "spread": "def f(size):\n    return size\ndef main():\n    return f(**{'size': 1})\n",
    "spread into a class": "class C:\n    def __init__(self, size):\n        self.n = size\n"
    "def main():\n    return C(**{'size': 1}).n\n",
    "spread into a method": "class C:\n    def f(self, size):\n        return size\n"
    "def main():\n    return C().f(**{'size': 1})\n",
    "spread into another name": "def f(size):\n    return size\ndef main():\n    g = f\n    return g(**{'size': 1})\n",
    "spread into an attribute": "def f(size):\n    return size\nclass C:\n    pass\n"
    "def main():\n    c = C()\n    c.call = f\n    return c.call(**{'size': 1})\n",
    "spread into what a function is given": "def f(size):\n    return size\n"
    "def g(call):\n    return call(**{'size': 1})\ndef main():\n    return g(f)\n",
    "spread into an expression": "def f(size):\n    return size\ndef main():\n    return [f][0](**{'size': 1})\n",
    "spread into a loop variable": "def f(size):\n    return size\n"
    "def main():\n    for g in (f,):\n        return g(**{'size': 1})\n",
}


@pytest.mark.parametrize("source", KEPT.values(), ids=KEPT)
def test_a_parameter_that_a_caller_may_name_keeps_its_name(tmp_path: Path, source: str) -> None:
    _, text = both(tmp_path, {"app": source})
    assert "size)" in text
    assert ": 'size'" not in text


def test_spreading_into_an_import_under_another_name_keeps_the_parameters(tmp_path: Path) -> None:
    files = {
        "tools": "def f(size):\n    return size\ndef other(path):\n    return path\n",
        "app": "from edgeagent.tools import f as g, other\ndef main():\n    return g(**{'size': 1}), other(2)\n",
    }
    _, text = both(tmp_path, files)
    assert "f(size)" in text
    assert "a: 'path'" in text


def test_what_applications_call_keeps_its_parameters(tmp_path: Path) -> None:
    files = {
        "app": "class Base:\n    def start(self, size):\n        return size\n"
        "class Agent(Base):\n    def __init__(self, config):\n        self.box = Job(config)\n"
        "    def _own(self, inner):\n        return inner\n"
        "class Job:\n    def __init__(self, document):\n        self.document = document\n"
        "    def progress(self, percent):\n        return percent\n"
        "class Special(Job):\n    def done(self, reason):\n        return reason\n"
        "class Other:\n    def use(self, thing):\n        return thing\n"
        "def main(argument=1):\n    x = Agent(2)\n    Other().use(3)\n"
        "    return x.start(1), x._own(2), x.box.progress(3), Special(4).done(5)\n",
    }
    public = {**MAIN, "Agent": "edgeagent.app"}
    _, text = both(tmp_path, files, public=public, handed_out={"Job": "edgeagent.app"})
    for kept in ("size", "config", "document", "percent", "reason", "argument=1"):
        assert f"{kept})" in text
    for gone in ("inner", "thing"):
        assert f": '{gone}'" in text


def test_a_name_that_the_file_has_anyway_stays_readable(tmp_path: Path) -> None:
    source = (
        "def f(value, topic):\n    return value.topic, topic\n"
        "def main():\n    return f(type('T', (), {'topic': 5})(), 3)\n"
    )
    _, text = both(tmp_path, {"app": source})
    assert "def f(a: 'value', topic):" in text


# --- private attributes

BOX = "class Box:\n    def __init__(self):\n        self._value = 3\n    def get(self):\n        return self._value\n"


def test_private_attributes_of_classes_that_are_not_related_share_letters(tmp_path: Path) -> None:
    bag = BOX.replace("Box", "Bag").replace("_value", "_amount")
    source = f"{BOX}{bag}def main():\n    return Box().get(), Bag().get()\n"
    _, text = both(tmp_path, {"app": source})
    assert text.count("self.a = 3") == 2
    assert "# Box: a is _value" in text


def test_private_attributes_of_related_classes_stay_apart(tmp_path: Path) -> None:
    source = (
        f"{BOX}class Bag(Box):\n    def __init__(self):\n        super().__init__()\n        self._amount = 4\n"
        "    def both(self):\n        return self._amount, (lambda: self._value)(), self.get()\n"
        "def main():\n    return Bag().both()\n"
    )
    found, text = both(tmp_path, {"app": source})
    assert found == "(4, 3, 3)"
    assert "_amount" not in text.replace("is _amount", "")


ATTRIBUTE_KEPT = {
    "getattr": "getattr(Box(), '_value')",
    "hasattr": "hasattr(Box(), '_value')",
    "put together": "getattr(Box(), '_' + 'value')",
    "split": "[getattr(Box(), name) for name in 'get _value'.split()][1]",
    "from outside": "Box()._value",
    "through another name": "(lambda box: box._value)(Box())",
    "listed": "'_value' in dir(Box())",
    "__dict__": "'_value' in Box().__dict__",
}


@pytest.mark.parametrize("expression", ATTRIBUTE_KEPT.values(), ids=ATTRIBUTE_KEPT)
def test_an_attribute_that_is_reached_otherwise_keeps_its_name(tmp_path: Path, expression: str) -> None:
    _, text = both(tmp_path, {"app": f"{BOX}def main():\n    return {expression}\n"})
    assert "self._value = 3" in text


def test_an_attribute_that_a_class_body_or_a_foreign_class_has_keeps_its_name(tmp_path: Path) -> None:
    body = BOX.replace("Box:\n", "Box:\n    _value = 1\n")
    method = BOX.replace("Box:\n", "Box:\n    def _value(self):\n        return 2\n")
    foreign = BOX.replace("Box:", "Box(Exception):")
    for number, text in enumerate((body, method, foreign)):
        _, text = both(tmp_path / str(number), {"app": f"{text}def main():\n    return Box().get()\n"})
        assert "self._value = 3" in text


def test_an_attribute_of_a_class_that_applications_derive_from_keeps_its_name(tmp_path: Path) -> None:
    files = {"app": f"{BOX}def main():\n    return Box().get()\n"}
    _, text = both(tmp_path, files, public={**MAIN, "Box": "edgeagent.app"})
    assert "self._value = 3" in text


def test_self_that_is_rebound_is_not_the_object(tmp_path: Path) -> None:
    source = (
        f"{BOX}class Bag:\n    def __init__(self):\n        self._value = 7\n"
        "    def peek(self):\n        self = Box()\n        return self._value\n"
        "    def inner(self):\n        return (lambda self: self._value)(Box())\n"
        "def main():\n    return Bag().peek(), Bag().inner()\n"
    )
    _, text = both(tmp_path, {"app": source})
    assert "self._value = 7" in text


# --- names of files

LATE = {
    "tools": "def measure(x):\n    return x + 1\ndef describe(x):\n    return 'd%s' % x\n"
    "class Failure(Exception):\n    pass\n",
    "late": "from edgeagent.tools import Failure, describe, measure\n"
    "def run(describe2):\n    try:\n        raise Failure(measure(describe2))\n"
    "    except Failure as error:\n        return describe(error), describe(1), describe(2), type(error).__name__\n",
    "app": "from edgeagent.tools import Failure, describe, measure\n"
    "def main():\n    from edgeagent.late import run\n    return run(5), measure(1), describe(2), Failure.__name__\n",
}


def test_what_a_file_uses_once_or_twice_is_read_through_the_package(tmp_path: Path) -> None:
    found, text = both(tmp_path, LATE)
    late = text.split("--- edgeagent.late")[1]
    assert "import edgeagent\n" in late
    assert "edgeagent.measure(" in late
    assert "from edgeagent import describe\n" in late
    assert found == "(('d6', 'd1', 'd2', 'Failure'), 2, 'd2', 'Failure')"


def test_what_many_files_import_gets_a_short_name_beside_its_own(tmp_path: Path) -> None:
    users = {
        f"late{n}": "from edgeagent.tools import describe\n"
        f"def run{n}(x):\n    return describe(x), describe({n}), describe('')\n"
        for n in range(6)
    }
    calls = "".join(f"    from edgeagent.late{n} import run{n}\n    found.append(run{n}({n}))\n" for n in range(6))
    app = f"from edgeagent.tools import describe\ndef main():\n    found = [describe(9)]\n{calls}    return found\n"
    _, text = both(tmp_path, {"tools": LATE["tools"], **users, "app": app})
    assert text.count("def describe(") == 1
    (short,) = set(re.findall(r"^# (\w\w) is describe$", text, re.MULTILINE))
    assert text.count(f"from edgeagent import {short}\n") == 6
    users["late9"] = "def other():\n    return 1\n"
    more = app.replace("    return found", "    from edgeagent.late9 import other\n    return found + [other()]")
    _, text = both(tmp_path / "two", {"tools": LATE["tools"], **users, "app": more})
    assert f"# {short} is describe" in text  # so that files of different versions never mix names up


def test_data_of_one_file_is_put_in_place_or_gets_a_letter(tmp_path: Path) -> None:
    source = (
        "_WORDS = ('alpha', 'beta')\n_table = {}\ncounter = 0\nlisted = [5]\n"
        "def up():\n    global counter\n    counter += 1\n"
        "def main():\n    up()\n    _table['x'] = _WORDS\n"
        "    return _table, [w for w in _WORDS], counter, listed, 'listed'\n"
    )
    found, text = both(tmp_path, {"app": source})
    assert found == "({'x': ('alpha', 'beta')}, ['alpha', 'beta'], 1, [5], 'listed')"
    assert "_WORDS" not in text
    assert "a = {}" in text
    assert "counter += 1" in text
    assert "listed = [5]" in text


def test_an_empty_class_keeps_its_name_and_bases(tmp_path: Path) -> None:
    source = (
        "class Wrong(ValueError):\n    pass\nclass Bag:\n    pass\n"
        "def main():\n    bag = Bag()\n    bag.x = 1\n    try:\n        raise Wrong('why')\n"
        "    except ValueError as error:\n"
        "        return type(error).__name__, str(error), bag.x, isinstance(error, Wrong)\n"
    )
    assert both(tmp_path, {"app": source})[0] == "('Wrong', 'why', 1, True)"


# --- the board's own files


def test_functions_and_classes_keep_their_names_for_tracebacks() -> None:
    sources = devices.agent_sources("UNIX_VIRTUAL")
    text = "".join(sources.values())
    for line in ("async def _handshake(self", "def read_file(path, limit)", "class Agent:", "def _keep(self"):
        assert line in text


def test_the_most_used_names_get_the_short_numbers(tmp_path: Path) -> None:
    source = devices.agent_sources("UNIX_VIRTUAL")["edgeagent/__init__"]
    assert source.startswith("# never runs")
    start = source.index("\nimport ")
    sizes = []
    for text in (source, source[start:]):
        (tmp_path / "a.py").write_text(text)
        sizes.append(len(compile_file(tmp_path / "a.py", "a", 3)))
    assert sizes[0] < sizes[1] - 300


def test_the_result_does_not_depend_on_the_order_of_sets() -> None:
    program = (
        "import hashlib\nfrom edgefleet import devices\n"
        "print(hashlib.sha256(repr(sorted(devices.agent_sources('').items())).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1

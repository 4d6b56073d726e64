# SPDX-License-Identifier: Apache-2.0
"""The linker of the board files: a linked program does what its modules do, or is refused with file and line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefleet import devices
from edgefleet.artifacts.link import link
from edgefleet.artifacts.modules import LinkError
from tests.support import MICROPYTHON

MAIN = {"main": "edgeagent.app"}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Modules of a package `edgeagent` in `folder`; `a.b` is a module b in a package a."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "edgeagent" / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def linked(folder: Path, files: dict[str, str], **options: Any) -> dict[str, str]:
    """Bundles of a program whose resident root is `app`."""
    chosen = {"resident": ["edgeagent.app"], "loaded_by_name": {}, "public": MAIN, "public_modules": {}, **options}
    return link(write(folder, files), **chosen)


def save(folder: Path, bundles: dict[str, str]) -> Path:
    for module, text in bundles.items():
        name = "edgeagent/__init__" if module == "edgeagent" else module.replace(".", "/")
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(folder: Path, program: str) -> str:
    """What a program prints on MicroPython, errors included."""
    environment = {**os.environ, "MICROPYPATH": f"{folder}:.frozen"}
    result = subprocess.run(
        [MICROPYTHON, "-c", program],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout


def output(folder: Path, files: dict[str, str], **options: Any) -> str:
    """What main() of `app` returns when linked."""
    return run(
        save(folder / "out", linked(folder, files, **options)), "from edgeagent import main\nprint(main())"
    ).strip()


# --- what linking must not change


def test_names_that_collide_keep_their_own_meaning(tmp_path: Path) -> None:
    files = {
        "a": "def size(x):\n    return _half(x) + 1\ndef _half(x):\n    return x // 2\n",
        "b": "def size(x):\n    return _half(x) + 2\ndef _half(x):\n    return x * 10\n",
        "app": "from edgeagent import a, b\ndef main():\n    return a.size(8), b.size(8)\n",
    }
    assert output(tmp_path, files) == "(5, 82)"


def test_a_parameter_and_a_local_hide_the_function_of_another_module(tmp_path: Path) -> None:
    files = {
        "log": "def error(text):\n    return 'logged ' + text\ndef info(text):\n    return 'said ' + text\n",
        "app": "from edgeagent import log\n"
        "def main(info='i'):\n"
        "    try:\n        {}['x']\n"
        "    except KeyError as error:\n        return log.error(str(error)), log.info(info)\n",
    }
    assert output(tmp_path, files) == "('logged x', 'said i')"


def test_a_builtin_is_not_hidden_by_the_name_of_another_module(tmp_path: Path) -> None:
    files = {
        "a": "def max(x):\n    return 'mine'\n",
        "app": "from edgeagent import a\ndef main():\n    return a.max(1), max(1, 2)\n",
    }
    assert output(tmp_path, files) == "('mine', 2)"


def test_a_changing_global_is_read_through_its_module(tmp_path: Path) -> None:
    files = {
        "state": "count = 0\ndef up():\n    global count\n    count += 1\n",
        "other": "count = 10\ndef up():\n    global count\n    count += 1\n",
        "app": "from edgeagent import other, state\n"
        "def main():\n    state.up()\n    state.up()\n    other.up()\n    return state.count, other.count\n",
    }
    assert output(tmp_path, files) == "(2, 11)"


def test_a_class_attribute_may_be_called_like_the_global_it_is_made_of(tmp_path: Path) -> None:
    files = {
        "app": "import sys\nclass Port:\n    sys = sys if sys else None\ndef main():\n    return Port.sys is sys\n"
    }
    assert output(tmp_path, files) == "True"


def test_names_bound_in_comprehensions_lambdas_and_nested_functions_stay_local(tmp_path: Path) -> None:
    files = {
        "a": "def x():\n    return 'a'\n",
        "app": "from edgeagent.a import x as _x\n"
        "def main():\n"
        "    def inner(y=_x()):\n        return [x + y for x in 'pq'], (lambda x: x)(_x())\n"
        "    return inner(), _x()\n",
    }
    assert output(tmp_path, files) == "((['pa', 'qa'], 'a'), 'a')"


def test_what_cannot_run_on_the_board_is_left_out(tmp_path: Path) -> None:
    files = {
        "compat": "try:\n    from typing import Any\n    from edgeagent import posix\n"
        "except ImportError:\n    Any = posix = None\nBOARD = not posix\n",
        "posix": "raise RuntimeError\n",
        "esp32": "PORT = ['the esp32']\n",
        "unix": "PORT = ['the other']\n",
        "app": "import sys\nfrom edgeagent.compat import BOARD, posix\n"
        "def main():\n"
        "    if sys.platform == 'esp32':\n        from edgeagent.esp32 import PORT\n"
        "    else:\n        from edgeagent.unix import PORT\n"
        "    return PORT if BOARD and not posix else 'host'\n",
    }
    bundles = linked(tmp_path, files, platform="esp32")
    assert sorted(bundles) == ["edgeagent", "edgeagent.esp32"]
    assert "host" not in bundles["edgeagent"]
    assert output(tmp_path / "two", files, platform="linux") == "['the other']"


def test_docstrings_annotations_and_what_nobody_uses_are_left_out(tmp_path: Path) -> None:
    idle = "unused = 1\ndef idle():\n    pass\n"
    files = {"app": f'"""Doc."""\n{idle}def main(x: "int" = 1) -> str:\n    """D."""\n    return x\n'}
    assert linked(tmp_path, files)["edgeagent"].split("\n", 1)[1] == "def main(x=1):\n    return x\n"


def test_a_name_that_is_bound_twice_keeps_its_last_value(tmp_path: Path) -> None:
    files = {
        "app": "x = 1\nx += 1\ny = 1\ndef y():\n    return 'function'\nz = 5\nz = [z, x]\n"
        "def main():\n    return x, y(), z\n"
    }
    assert output(tmp_path, files) == "(2, 'function', [5, 2])"


def test_a_name_that_only_other_boards_have_is_refused(tmp_path: Path) -> None:
    led = "import sys\nif sys.platform == 'rp2':\n    def led():\n        return 1\n"
    files = {"app": f"{led}def main():\n    return led()\n"}
    assert output(tmp_path, files, platform="rp2") == "1"
    with pytest.raises(LinkError, match="led is not defined on this board"):
        linked(tmp_path / "two", files, platform="esp32")


# --- what is loaded on demand

LAZY = {
    "jobs.__init__": "",
    "common": "def used_by_both():\n    return 'both'\n",
    "helper": "def only_lazy(x):\n    return x + '!'\ndef both(x):\n    return x + '?'\n",
    "jobs.one": "from edgeagent.common import used_by_both\nfrom edgeagent.helper import both, only_lazy\n"
    "RESUME = True\ndef run():\n    return only_lazy(both(used_by_both()))\n",
    "jobs.two": "from edgeagent.common import used_by_both\nRESUME = False\ndef run():\n    return used_by_both()\n",
    "app": "import sys\nfrom edgeagent.helper import both\n"
    "def main():\n"
    "    before = sorted(n for n in sys.modules if n.startswith('edgeagent'))\n"
    "    found = []\n"
    "    for name in ('one', 'two'):\n"
    "        __import__('edgeagent.jobs.' + name)\n"
    "        module = sys.modules.pop('edgeagent.jobs.' + name)\n"
    "        found.append((module.run(), module.RESUME))\n"
    "    return before, found, both('b')\n",
}
BY_NAME = {"edgeagent.jobs.one": ("run", "RESUME"), "edgeagent.jobs.two": ("run", "RESUME")}


def test_modules_loaded_by_name_stay_files_that_can_be_dropped(tmp_path: Path) -> None:
    options = {"loaded_by_name": BY_NAME, "dynamic": ["edgeagent.app"]}
    bundles = linked(tmp_path, LAZY, **options)
    assert sorted(bundles) == ["edgeagent", "edgeagent.common", "edgeagent.jobs.one", "edgeagent.jobs.two"]
    assert "only_lazy" not in bundles["edgeagent"]
    assert "def only_lazy" in bundles["edgeagent.jobs.one"]
    expected = "(['edgeagent', 'edgeagent.jobs'], [('both?!', True), ('both', False)], 'b?')"
    assert output(tmp_path / "two", LAZY, **options) == expected


def test_a_module_object_that_is_handed_around_offers_its_public_names(tmp_path: Path) -> None:
    files = {
        "rules": "def _hidden():\n    return 1\ndef one():\n    return _hidden()\ndef two():\n    return 2\n",
        "app": "def _rules():\n    from edgeagent import rules\n    return rules\n"
        "def main():\n    return _rules().one(), getattr(_rules(), 'two')()\n",
    }
    assert output(tmp_path, files) == "(1, 2)"


def test_a_module_object_that_is_only_read_is_renamed_through(tmp_path: Path) -> None:
    files = {
        "rules": "def max(x):\n    return 'rule'\ndef top(a):\n    return max(a)\n",
        "more": "def top(a):\n    return a\n",
        "app": "from edgeagent.more import top\n"
        "def main():\n    from edgeagent import rules\n    found = rules.max(1), rules.top(2), top(3), max(4, 5)\n"
        "    del rules\n    return found\n",
    }
    assert output(tmp_path, files) == "('rule', 'rule', 3, 5)"


def test_a_submodule_does_not_overwrite_a_name_of_the_package(tmp_path: Path) -> None:
    files = {
        "config": "def load():\n    return 'loaded'\n",
        "topics": "def config():\n    return 'topic'\n",
        "app": "from edgeagent import topics\n"
        "def main():\n    from edgeagent.config import load\n    return load(), topics.config()\n",
    }
    assert output(tmp_path, files) == "('loaded', 'topic')"


def test_only_public_names_can_be_imported(tmp_path: Path) -> None:
    files = {
        "log": "def info():\n    return 'info'\ndef _write():\n    pass\n",
        "app": "from edgeagent import log\ndef main():\n    return log.info()\n",
    }
    bundles = linked(tmp_path, files, public_modules={"log": "edgeagent.log info"})
    out = save(tmp_path / "out", bundles)
    assert run(out, "from edgeagent import log, main\nprint(log.info(), main())") == "info info\n"
    for program in ("import edgeagent.log", "from edgeagent import app", "from edgeagent.app import main"):
        assert "ImportError" in run(out, program)


# --- what is refused

REFUSED = {
    "module as object": ("from edgeagent import a\ndef main():\n    return a\n", 3, "used as an object"),
    "module in getattr": ("from edgeagent import a\ndef main():\n    return getattr(a, 'x')\n", 3, "used as an object"),
    "assignment to a module": ("from edgeagent import a\ndef main():\n    a.x = 1\n", 3, "assigns to x"),
    "unknown name of a module": ("from edgeagent import a\ndef main():\n    return a.y\n", 3, "does not exist"),
    "unknown import": ("from edgeagent.a import y\n", 1, "has no y"),
    "unknown module": ("from edgeagent.b import y\n", 1, "does not exist"),
    "undefined name": ("def main():\n    return y\n", 2, "y is not defined"),
    "star import": ("from edgeagent.a import *\n", 1, "star"),
    "relative import": ("from . import a\n", 1, "relative"),
    "plain import": ("import edgeagent.a\n", 1, "from … import"),
    "dotted import": ("import os.path\n", 1, "dotted"),
    "copy of a changing name": ("from edgeagent.a import count\n", 1, "count changes"),
    "import and assignment": ("from edgeagent.a import x\nx = 2\n", 2, "imported and assigned"),
    "global and local": ("def main():\n    x = 1\n    def f():\n        global x\n        x = 2\n", 4, "global x"),
    "global of an import": (
        "from edgeagent.a import x\ndef main():\n    global x\n    x = 1\n",
        1,
        "imported and assigned",
    ),
    "lazy import of a global": ("x = 0\ndef main():\n    global x\n    from edgeagent.a import x\n", 4, "global x"),
    "import under if": ("import sys\nif sys.byteorder:\n    from edgeagent.a import x\n", 3, "top-level statement"),
    "del of a global": ("x = 1\ndel x\n", 2, "del of the global"),
    "exec": ("def main():\n    exec('x')\n", 2, "exec()"),
    "globals": ("def main():\n    return globals()\n", 2, "globals()"),
    "dynamic import": ("def main():\n    __import__('edgeagent.a')\n", 2, "__import__()"),
    "const of a call": ("_X = const(len('a'))\n", 1, "const()"),
    "module's own name": ("def main():\n    return __name__\n", 2, "__name__ is not defined"),
    "import under try": ("try:\n    import esp32\nexcept ImportError:\n    esp32 = None\n", 2, "top-level statement"),
    "global without a value": ("def main():\n    global x\n    x = 1\n", 2, "not assigned at top level"),
    "syntax": ("def main(:\n", 1, "invalid syntax"),
}


@pytest.mark.parametrize(("source", "line", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_with_file_and_line(tmp_path: Path, source: str, line: int, why: str) -> None:
    files = {"a": "x = [1]\ncount = 0\ndef up():\n    global count\n    count += 1\n", "app": source}
    with pytest.raises(LinkError) as caught:
        linked(tmp_path, files, public={})
    assert f"{tmp_path}/edgeagent/app.py:{line}: " in str(caught.value)
    assert why in str(caught.value)


def test_a_circle_of_imports_is_refused(tmp_path: Path) -> None:
    files = {"a": "from edgeagent.app import y\nx = 1\n", "app": "from edgeagent.a import x\ny = 2\n"}
    with pytest.raises(LinkError, match="in a circle"):
        linked(tmp_path, files, public={})


def test_a_changing_name_is_not_shared_between_files(tmp_path: Path) -> None:
    files = {
        "a": "count = 0\ndef up():\n    global count\n    count += 1\n",
        "late": "from edgeagent import a\ndef show():\n    return a.count\n",
        "app": "from edgeagent import a\n"
        "def main():\n    from edgeagent.late import show\n    a.up()\n    return show()\n",
    }
    with pytest.raises(LinkError, match="count changes"):
        linked(tmp_path, files)


def test_a_public_name_must_exist(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="has no nothing"):
        linked(tmp_path, {"app": "x = 1\n"}, public={"nothing": "edgeagent.app"})


# --- programs nobody thought of

PACKAGE = (  # as MicroPython needs it for `from edgeagent import m1`
    "import sys\ndef __getattr__(name):\n    name = 'edgeagent.' + name\n"
    "    __import__(name)\n    return sys.modules[name]\n"
)
POOL = ("a", "b", "size", "max", "_p", "text")


@st.composite
def programs(draw: Any) -> dict[str, str]:
    """Up to five modules that import each other in every supported way, with few names, so that they collide."""
    modules: list[dict[str, str]] = []  # name → kind, of each module
    files: dict[str, str] = {}
    count = draw(st.integers(2, 5))
    for number in range(count):
        own: dict[str, str] = {}
        lines: list[str] = []
        scope: dict[str, str] = {}  # expression → kind, at module level
        taken: set[str] = set()
        for other, names in enumerate(modules):
            style = draw(st.sampled_from(("none", "from", "module")))
            if style == "module":
                lines.append(f"from edgeagent import m{other}")
                taken.add(f"m{other}")
                scope.update({f"m{other}.{name}": kind for name, kind in names.items()})
            elif style == "from":
                for name in draw(st.lists(st.sampled_from(sorted(names)), unique=True)):
                    if name not in taken and names[name] != "counter":
                        taken.add(name)
                        lines.append(f"from edgeagent.m{other} import {name}")
                        scope[name] = names[name]
        for name in draw(st.lists(st.sampled_from(POOL), min_size=1, max_size=4, unique=True)):
            if name in taken:
                continue
            taken.add(name)
            kind = draw(st.sampled_from(("int", "text", "list", "function", "class", "counter")))
            lines += _definition(draw, name, kind, number, scope, modules)
            own[name] = scope[name] = kind
        if not own:
            lines.append("last = 1")
            own["last"] = "int"
        modules.append(own)
        files[f"m{number}"] = "\n".join(lines) + "\n"
    parts = [_read(f"m{n}.{name}", kind) for n, names in enumerate(modules) for name, kind in names.items()]
    late = {number for number in range(count) if draw(st.booleans())}
    imports = "".join(f"from edgeagent import m{number}\n" for number in range(count) if number not in late)
    lazily = "".join(f"    from edgeagent import m{number}\n" for number in sorted(late))
    files["app"] = f"{imports}def main():\n{lazily}    return [{', '.join(parts)}]\n"
    return files


def _read(expression: str, kind: str) -> str:
    return {"function": f"{expression}(3)", "class": f"{expression}().get(4)"}.get(kind, expression)


def _definition(
    draw: Any, name: str, kind: str, number: int, scope: dict[str, str], modules: list[dict[str, str]]
) -> list[str]:
    if kind in ("int", "text", "list"):
        value = {"int": number, "text": "t" * draw(st.integers(1, 14)) + str(number), "list": [number]}[kind]
        return [f"{name} = {value!r}"]
    if kind == "counter":
        return [f"{name} = {number}", f"def up_{name}():", f"    global {name}", f"    {name} += 1", f"up_{name}()"]
    parameter = draw(st.sampled_from(POOL))
    local = draw(st.sampled_from(POOL))
    hidden = {parameter, local} if kind == "function" else {parameter, local, "self"}
    body = [f"{local} = {number}"] if local != parameter else []
    seen = dict(scope)
    if modules and draw(st.booleans()):
        other = draw(st.integers(0, len(modules) - 1))
        if draw(st.booleans()):
            body.append(f"from edgeagent import m{other} as late")
            seen |= {f"late.{n}": kind for n, kind in modules[other].items()}
        else:
            late = draw(st.sampled_from(sorted(modules[other])))
            body.append(f"from edgeagent.m{other} import {late} as late")
            seen["late"] = modules[other][late]
    usable = sorted(e for e in seen if e.split(".")[0] not in hidden)
    chosen = draw(st.lists(st.sampled_from(usable), max_size=3)) if usable else []
    parts = [_read(expression, seen[expression]) for expression in chosen]
    values = ", ".join([f"'{name}{number}'", parameter, local, *parts])
    if kind == "function":
        return [f"def {name}({parameter}):", *(f"    {line}" for line in body), f"    return [{values}]"]
    method = [f"        {line}" for line in body]
    return [f"class {name}:", f"    def get(self, {parameter}):", *method, f"        return [{values}]"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=programs())
def test_a_linked_program_says_what_its_modules_say(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("program")
    source = write(folder / "source", {"__init__": PACKAGE, **files})
    plain = run(source, "from edgeagent.app import main\nprint(main())")
    try:
        bundles = linked(folder / "source", {"__init__": PACKAGE, **files})
    except LinkError as error:
        assert "changes" in str(error), error  # a counter that two files would share: the one thing that may be refused
        return
    found = run(save(folder / "linked", bundles), "from edgeagent import main\nprint(main())")
    assert found == plain, bundles


# --- the board's own files


@pytest.mark.parametrize("board", ["", "ESP32_GENERIC", "RPI_PICO_W", "UNIX_VIRTUAL"])
def test_the_agent_links_and_says_the_same_twice(board: str) -> None:
    first = devices.agent_sources.__wrapped__(board)
    assert first == devices.agent_sources.__wrapped__(board)
    assert list(first) == sorted(first)


@pytest.mark.parametrize(("board", "port"), [("ESP32_GENERIC", "Esp32Port"), ("RPI_PICO_W", "Rp2Port")])
def test_a_board_gets_its_own_port_alone(board: str, port: str) -> None:
    text = "".join(devices.agent_sources(board).values())
    assert f"class {port}(" in text
    assert [name for name in ("Esp32Port", "Rp2Port", "LinuxPort") if f"class {name}" in text] == [port]


def test_any_board_finds_every_port() -> None:
    found = devices.agent_sources("")
    assert {"edgeagent/ports/esp32", "edgeagent/ports/rp2", "edgeagent/ports/micropython"} <= set(found)

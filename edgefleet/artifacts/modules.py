# SPDX-License-Identifier: Apache-2.0
"""Portable modules as a board sees them: without annotations and docstrings, and with what is known there folded in.

First half of the linker (link.py). What is known: sys.platform, that `typing` and `edgeagent.posix` do not exist, and
every module constant that is assigned once. A branch that cannot run on the board is gone afterwards.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet.artifacts.scopes import Scoped, bound
from edgefleet.errors import InputError

PACKAGE = "edgeagent"
ABSENT = ("typing", "edgeagent.posix")  # on boards; the `except ImportError` around such an import is what counts
INLINE_CHARS = 10  # MicroPython interns strings up to this length in the code itself
_REFUSED_CALLS = ("exec", "eval", "globals", "locals", "vars")
_FOLDABLE = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop, ast.expr_context)


class LinkError(InputError):
    """A construct that cannot be linked without guessing: `FILE:LINE: why`."""


class Comment(ast.stmt):
    """A line of the linked source, of which nothing is compiled."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


@dataclass(frozen=True)
class Target:
    """What a name of a module stands for. kind: "def" (name of `module`), "mod" (the module itself), "ext" (a module
    that the firmware has, or `name` in it).
    """

    kind: str
    module: str
    name: str = ""


@dataclass
class Module:
    """constants: name → value for those that are folded. rebound: names that a function declares `global`."""

    name: str
    path: Path
    body: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, Target] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)  # classes of nothing but constants, as LIMITS
    names: set[str] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)
    needs: list[str] = field(default_factory=list)  # modules imported when this one is, in order

    def error(self, node: ast.AST, why: str) -> LinkError:
        return LinkError(f"{self.path}:{getattr(node, 'lineno', 1)}: {why}")


class _Folder(Scoped):
    """Drops annotations and docstrings, puts constants in place of their names, and decides what they decide."""

    def __init__(self, module: Module, program: Program) -> None:
        super().__init__()
        self.module = module
        self.program = program

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        for child in ast.walk(node.args):
            if isinstance(child, ast.arg):
                child.annotation = None
        return super().function(node)

    visit_FunctionDef = visit_AsyncFunctionDef = function

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))  # type: ignore[no-any-return]

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Load) and not self.is_local(node.id):
            target = self.program.lookup(self.module, node.id)
            return self.constant(node, target)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        base = node.value
        if isinstance(base, ast.Name) and not self.is_local(base.id):
            target = self.program.lookup(self.module, base.id)
            if target == Target("ext", "sys") and node.attr == "platform" and self.program.platform:
                return ast.copy_location(ast.Constant(self.program.platform), node)
            if target and target.kind == "mod" and isinstance(node.ctx, ast.Load):
                found = self.program.member(target.module, node.attr)
                folded = self.constant(node, found)
                if folded is not node:
                    return folded
            table = target and target.kind == "def" and self.program.modules[target.module].tables.get(target.name)
            if table:
                if not isinstance(node.ctx, ast.Load) or node.attr not in table:
                    raise self.module.error(node, f"{base.id}.{node.attr} is not one of its constants")
                return self.literal(node, table[node.attr])
        return self.generic_visit(node)

    def constant(self, node: ast.AST, target: Target | None) -> ast.AST:
        if target and target.kind == "def":
            constants = self.program.modules[target.module].constants
            if target.name in constants:
                return self.literal(node, constants[target.name])
        return node

    @staticmethod
    def literal(node: ast.AST, value: Any) -> ast.AST:
        return ast.copy_location(ast.parse(repr(value), mode="eval").body, node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return self.literal(node, not node.operand.value)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        ends = isinstance(node.op, ast.Or)  # the truth value that ends the evaluation
        values: list[ast.expr] = []
        for value in node.values:
            if isinstance(value, ast.Constant) and bool(value.value) != ends and value is not node.values[-1]:
                continue
            values.append(value)
            if isinstance(value, ast.Constant) and bool(value.value) == ends:
                break
        node.values = values
        return values[0] if len(values) == 1 else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        right = node.comparators[0]
        if isinstance(node.left, ast.Constant) and isinstance(right, ast.Constant) and len(node.ops) == 1:
            if isinstance(node.ops[0], ast.Eq):
                return self.literal(node, node.left.value == right.value)
            if isinstance(node.ops[0], ast.NotEq):
                return self.literal(node, node.left.value != right.value)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> Any:
        node.test = self.visit(node.test)
        if isinstance(node.test, ast.Constant):
            return self.many(node.body if node.test.value else node.orelse)
        return self.blocks(node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                raise self.module.error(node, f"import {alias.name}: write `from … import …`")
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level or node.names[0].name == "*":
            raise self.module.error(node, "relative and star imports cannot be linked")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _REFUSED_CALLS and not self.is_local(name):
            raise self.module.error(node, f"{name}() sees names that the linker moves")
        return self.generic_visit(node)

    def blocks(self, node: ast.AST) -> ast.AST:
        """Visit the children; a block that lost all its statements keeps a `pass`."""
        self.generic_visit(node)
        if not getattr(node, "body", True):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    visit_For = visit_AsyncFor = visit_While = visit_With = visit_AsyncWith = visit_ExceptHandler = blocks

    def visit_Try(self, node: ast.Try) -> Any:
        chosen = on_board(node)
        return self.blocks(node) if chosen == [node] else self.many(chosen)


def on_board(node: ast.stmt) -> list[ast.stmt]:
    """Of a `try` with an import for hosts in one half: the other half, which is what runs. Else the statement."""
    if isinstance(node, ast.Try):
        if _imports_absent(node.body):
            return node.handlers[0].body
        if any(_imports_absent(handler.body) for handler in node.handlers):
            return [*node.body, *node.orelse]
    return [node]


def _imports_absent(body: list[ast.stmt]) -> bool:
    for node in body:
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        if any(name in ABSENT for name in names):
            return True
    return False


class Program:
    """All modules that the roots reach, by name, in the order in which they would be loaded."""

    def __init__(self, root: Path, platform: str) -> None:
        """root: the folder that holds the package. platform: the board's sys.platform, "" if it may be any."""
        self.root = root
        self.platform = platform
        self.modules: dict[str, Module] = {}
        self._loading: list[str] = []

    def path_of(self, name: str) -> Path | None:
        base = self.root.joinpath(*name.split("."))
        return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)

    def load(self, name: str, source: Module | None = None, node: ast.AST | None = None) -> Module:
        """The module and, first, all that it imports when it is loaded. Raises LinkError."""
        path = self.path_of(name)
        if path is None or name in self._loading:
            why = "does not exist" if path is None else f"is imported in a circle: {' → '.join(self._loading)}"
            raise source.error(node, f"{name} {why}") if source and node else LinkError(f"{name} {why}")
        if name in self.modules:
            return self.modules[name]
        parent = name.rpartition(".")[0]
        if parent and parent not in self._loading and self.path_of(parent):
            self.load(parent)
        self._loading.append(name)
        module = Module(name, path)
        try:
            tree = ast.parse(path.read_text(), str(path))
        except SyntaxError as error:
            raise LinkError(f"{path}:{error.lineno}: {error.msg}") from None
        module.names = bound(tree)
        for part in ast.walk(tree):
            if isinstance(part, ast.Global):
                module.rebound.update(part.names)
        self._fold(module, tree)
        self._loading.pop()
        self.modules[name] = module
        return module

    def _fold(self, module: Module, tree: ast.Module) -> None:
        self.modules[module.name] = module  # lookup() needs it while it is being folded
        folder = _Folder(module, self)
        tree.body = [chosen for node in tree.body for chosen in on_board(node)]
        seen: dict[str, int] = {}
        for part in ast.walk(tree):
            names = [getattr(part, "name", None)]
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
                names = [part.id]
            elif isinstance(part, ast.alias):
                names = [part.asname or part.name]
            for name in names:
                seen[str(name)] = seen.get(str(name), 0) + 1
        queue = list(tree.body)
        while queue:
            found = folder.visit(queue.pop(0))
            for node in found if isinstance(found, list) else [found] if found else []:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    self._import(module, node)
                elif not isinstance(node, ast.Pass):
                    self._constants(module, node, seen)
                    module.body.append(node)
        del self.modules[module.name]

    def _import(self, module: Module, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            local = (alias.asname or alias.name).split(".")[0]
            if local in module.imports or local in module.rebound:
                raise module.error(node, f"{local} is imported and assigned")
            target = self.imported(module, node, alias)
            if target and self.changes(target):
                raise module.error(node, f"{alias.name} changes; read it through its module")
            if target:
                module.imports[local] = target
            source = str(getattr(node, "module", ""))
            for name in (source, f"{source}.{alias.name}"):
                if name in self.modules:
                    module.needs.append(name)

    def changes(self, target: Target) -> bool:
        """A name that gets another value after its module was loaded."""
        return target.kind == "def" and target.name in self.modules[target.module].rebound

    def imported(self, module: Module, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Target | None:
        """What one name of an import stands for; a module of ours is loaded. None: `const`, which compiles away."""
        if isinstance(node, ast.Import):
            if "." in alias.name:
                raise module.error(node, f"import {alias.name}: dotted imports cannot be linked")
            return Target("ext", alias.name)
        source = str(node.module)
        if alias.name == "const":
            return None
        if source.split(".")[0] != PACKAGE:
            return Target("ext", source, alias.name)
        outer = self.load(source, module, node)
        if alias.name in outer.names:
            return self.lookup(outer, alias.name)
        if self.path_of(f"{source}.{alias.name}") is None:
            raise module.error(node, f"{source} has no {alias.name}")
        return Target("mod", self.load(f"{source}.{alias.name}", module, node).name)

    def _constants(self, module: Module, node: ast.stmt, seen: dict[str, int]) -> None:
        if isinstance(node, ast.ClassDef):
            pairs = [(s.targets[0], s.value) for s in node.body if isinstance(s, ast.Assign) and len(s.targets) == 1]
            values = {t.id: evaluate(v) for t, v in pairs if isinstance(t, ast.Name) and t.id.isupper()}
            good = all(found and not isinstance(found[0], str) for found in values.values())
            if node.name.isupper() and len(values) == len(node.body) and not node.bases and good:
                module.tables[node.name] = {name: found[0] for name, found in values.items() if found}
        if not isinstance(node, ast.Assign) or not all(isinstance(target, ast.Name) for target in node.targets):
            return
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        value = node.value
        declared = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "const"
        if declared and isinstance(value, ast.Call):
            value = value.args[0]
        found = evaluate(value)
        if declared and not found:
            raise module.error(node, "const() of something that is not constant")
        if not found or module.rebound.intersection(names) or any(seen[name] > 1 for name in names):
            if declared:
                raise module.error(node, "a constant that is assigned elsewhere")
            return
        short = isinstance(found[0], bool | int | None) or (isinstance(found[0], str) and len(found[0]) <= INLINE_CHARS)
        if declared or short:
            module.constants.update(dict.fromkeys(names, found[0]))

    def lookup(self, module: Module, name: str) -> Target | None:
        """What a global name of `module` stands for; None for a builtin, or `const`."""
        if name in module.imports:
            return module.imports[name]
        if name in module.names and name != "const":
            return Target("def", module.name, name)
        return None

    def member(self, module: str, name: str) -> Target | None:
        """What the attribute `name` of a module stands for."""
        found = self.modules[module]
        if name in found.names:
            return self.lookup(found, name)
        return Target("mod", f"{module}.{name}") if f"{module}.{name}" in self.modules else None


def evaluate(node: ast.expr) -> tuple[Any] | None:
    """(value,) of an expression of literals."""
    if not all(isinstance(part, _FOLDABLE) for part in ast.walk(node)):
        return None
    try:
        return (eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}}),)  # noqa: S307  literals only
    except (ArithmeticError, TypeError, ValueError):
        return None


def is_builtin(name: str) -> bool:
    """Not those that say which module the code is in."""
    return name in ("const", "__import__") or (hasattr(builtins, name) and name[:2] != "__")


def defines(path: Path, names: Collection[str]) -> bool:
    """Does a module bind all these names?"""
    return bound(ast.parse(path.read_text())).issuperset(names)

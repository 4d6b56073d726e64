# SPDX-License-Identifier: Apache-2.0
"""Which global each name of a module stands for: the scope analysis of the linker (link.py).

Every place is marked with what it stands for (`node._link`), so that the linker can rename it; a construct whose
meaning cannot be proved is a LinkError.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgefleet.artifacts.modules import PACKAGE, Module, Program, Target, evaluate, is_builtin
from edgefleet.artifacts.scopes import Scoped, bound


@dataclass(eq=False)
class Use:
    """A global name at one place. hidden: the local names there. pinned: a class body needs it under its own name.

    alias, via: local name of the module object it is read from, and that module, if a function has imported it.
    """

    target: Target
    hidden: frozenset[str] = frozenset()
    pinned: bool = False
    alias: str = ""
    via: str = ""


@dataclass(eq=False)
class Lazy:
    """`from … import …` of the package inside a function. target: kind "def", or "mod" for a module object.

    free: the module object is only used to read its names.
    """

    source: str
    target: Target
    local: str
    hidden: frozenset[str]
    free: bool = True


@dataclass(eq=False)
class Item:
    """A top-level statement. pure: without use it may go. fixed: it cannot move to another bundle."""

    module: Module
    node: ast.stmt
    names: list[str] = field(default_factory=list)
    pure: bool = False
    fixed: bool = True
    uses: list[Use] = field(default_factory=list)
    lazies: list[Lazy] = field(default_factory=list)
    builtins: set[str] = field(default_factory=set)
    home: str = ""

    @property
    def targets(self) -> Iterator[Target]:
        """All that it needs of others."""
        yield from (use.target for use in self.uses)
        yield from (lazy.target for lazy in self.lazies)


class _Collector(Scoped):
    """Marks, in one statement, every place that stands for a global (`node._link`), and refuses what is unclear."""

    def __init__(self, program: Program, item: Item, dynamic: Collection[str]) -> None:
        super().__init__()
        self.module = item.module
        self.program = program
        self.item = item
        self.dynamic = dynamic
        self.functions: list[ast.AST] = []
        self.aliases: list[dict[str, str]] = []

    def use(self, node: ast.AST, target: Target, pinned: bool = False, alias: str = "", via: str = "") -> ast.AST:
        hidden = self.locals() - ({node.id} if pinned and isinstance(node, ast.Name) else set())
        use = Use(target, frozenset(hidden), pinned, alias, via)
        self.item.uses.append(use)
        node._link = use  # type: ignore[attr-defined]
        return node

    def own(self, name: str) -> Target:
        return Target("def", self.module.name, name)

    def within(self, node: ast.AST, parts: list[Any]) -> list[Any]:
        self.functions.append(node)
        self.aliases.append({})
        try:
            return super().within(node, parts)
        finally:
            self.functions.pop()
            self.aliases.pop()

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.defined(node)
        return super().function(node)

    visit_FunctionDef = visit_AsyncFunctionDef = function

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.defined(node)
        return super().visit_ClassDef(node)

    def defined(self, node: Any) -> None:
        if not self.is_local(node.name):
            self.use(node, self.own(node.name))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name and not self.is_local(node.name):
            raise self.module.error(node, f"`as {node.name}` binds a global")
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        for name in node.names:
            if self.is_local(name) or name in self.module.imports:
                raise self.module.error(node, f"global {name}: is a local or an import as well")
            if name not in self.module.names:
                raise self.module.error(node, f"global {name}: is not assigned at top level")
        node._link = [Use(self.own(name), frozenset(self.locals())) for name in node.names]  # type: ignore[attr-defined]
        self.item.uses += node._link  # type: ignore[attr-defined]
        return node

    def module_of(self, node: ast.expr) -> tuple[str, str] | None:
        """(module, local alias or "") if the expression is a module of the package."""
        if isinstance(node, ast.Name):
            if self.is_local(node.id):
                for aliases in reversed(self.aliases):
                    if node.id in aliases:
                        return aliases[node.id], node.id
                return None
            target = self.program.lookup(self.module, node.id)
            return (target.module, "") if target and target.kind == "mod" else None
        if isinstance(node, ast.Attribute):
            outer = self.module_of(node.value)
            target = self.program.member(outer[0], node.attr) if outer else None
            return (target.module, "") if target and target.kind == "mod" else None
        return None

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self.module_of(node):
            if not self.is_local(node.id):
                raise self.module.error(node, f"the module {node.id} is used as an object")
            return node
        target = self.program.lookup(self.module, node.id)
        if self.is_local(node.id):
            if self.is_class_name(node.id) and target and isinstance(node.ctx, ast.Load):
                self.use(node, target, pinned=True)
            return node
        if isinstance(node.ctx, ast.Del):
            raise self.module.error(node, f"del of the global {node.id}")
        if target is None:
            if not is_builtin(node.id):
                raise self.module.error(node, f"{node.id} is not defined")
            self.item.builtins.add(node.id)
            return node
        if isinstance(node.ctx, ast.Store) and target != self.own(node.id):
            raise self.module.error(node, f"{node.id} is imported and assigned")
        return self.use(node, target)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        found = self.module_of(node.value)
        if not found:
            return self.generic_visit(node)
        module, alias = found
        target = self.program.member(module, node.attr)
        if not isinstance(node.ctx, ast.Load):
            raise self.module.error(node, f"assigns to {node.attr} of the module {module}")
        if target is None or target.kind == "mod":
            why = "is used as an object" if target else "does not exist"
            raise self.module.error(node, f"{module}.{node.attr} {why}")
        return self.use(node, target, alias=alias, via=module)

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        modules = {part.id: self.module_of(part) for part in node.targets if isinstance(part, ast.Name)}
        node._modules = {name: found[0] for name, found in modules.items() if found}  # type: ignore[attr-defined]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        dynamic = isinstance(node.func, ast.Name) and node.func.id == "__import__"
        if dynamic and self.module.name not in self.dynamic:
            raise self.module.error(node, "__import__() in a module that is not named as one that does so")
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.AST:
        for alias in node.names:
            name = (alias.asname or alias.name).split(".")[0]
            if not self.is_local(name):
                raise self.module.error(node, f"{name} is imported inside a top-level statement, or as a global")
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if str(node.module).split(".")[0] != PACKAGE:
            return [] if node.names[0].name == "const" else self.visit_Import(node)
        if not self.scopes:
            raise self.module.error(node, "import of the package inside a top-level statement")
        return [part for alias in node.names for part in self.lazy(node, alias)]

    def lazy(self, node: ast.ImportFrom, alias: ast.alias) -> list[ast.stmt]:
        target = self.program.imported(self.module, node, alias)
        local = alias.asname or alias.name
        if target is None:
            return []
        if not self.is_local(local):
            raise self.module.error(node, f"global {local} is imported inside a function")
        source = str(node.module)
        if target.kind == "ext":
            raise self.module.error(node, f"{local} is not defined in {source}")
        free = True
        if target.kind == "mod":
            source = target.module
            free = self.only_read(local)
            if free:
                self.aliases[-1][local] = target.module
        else:
            constants = self.program.modules[target.module].constants
            if target.name in constants:
                value = ast.parse(repr(constants[target.name]), mode="eval").body
                return [ast.copy_location(ast.Assign([ast.Name(local, ast.Store())], value), node)]
        lazy = Lazy(source, target, local, frozenset(self.locals()), free)
        self.item.lazies.append(lazy)
        part = ast.copy_location(ast.ImportFrom(source, [ast.alias(alias.name, alias.asname)], 0), node)
        part._link = lazy  # type: ignore[attr-defined]
        return [part]

    def only_read(self, local: str) -> bool:
        """In this function the name is bound once, and used for nothing but reading attributes (and `del`)."""
        bindings = attributes = names = 0
        for part in ast.walk(self.functions[-1]):
            if isinstance(part, ast.ImportFrom):
                bindings += sum((alias.asname or alias.name) == local for alias in part.names)
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == local:
                attributes += isinstance(part.ctx, ast.Load)
            elif isinstance(part, ast.Name) and part.id == local:
                names += not isinstance(part.ctx, ast.Del)
            elif isinstance(part, ast.arg) and part.arg == local:
                return False
        return bindings == 1 and names == attributes


def items(program: Program, module: Module, dynamic: Collection[str]) -> list[Item]:
    found = []
    for node in module.body:
        if module.name == PACKAGE and getattr(node, "name", "") == "__getattr__":
            continue  # loads on demand what is there already when linked
        item = Item(module, node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [part for part in (*node.args.defaults, *node.args.kw_defaults) if part]
            item.pure = not node.decorator_list and all(evaluate(part) for part in defaults)
            item.fixed = not item.pure or any(isinstance(part, ast.Global) for part in ast.walk(node))
        elif isinstance(node, ast.ClassDef):
            plain = not node.decorator_list and not node.keywords
            item.pure = plain and all(isinstance(part, ast.Name) for part in node.bases)
            item.pure = item.pure and all(map(_harmless, node.body))
        elif isinstance(node, ast.Assign):
            item.pure = all(isinstance(part, ast.Name) for part in node.targets) and _plain(node.value)
            item.fixed = not item.pure or not evaluate(node.value)
        _Collector(program, item, dynamic).many([node])
        own = {use.target.name for use in item.uses if use.target == Target("def", module.name, use.target.name)}
        item.names = sorted(own & _bound_here(node))
        found.append(item)
    for item in found:
        if any(set(item.names) & set(other.names) for other in found if other is not item):
            item.pure = False  # one binding of several: none may go without the others
            item.fixed = True
    return found


def _harmless(node: ast.stmt) -> bool:
    """A statement of a class body that does nothing but define."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [part for part in node.decorator_list if not isinstance(part, ast.Name)]
        return not names and all(evaluate(part) for part in (*node.args.defaults, *node.args.kw_defaults) if part)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Assign) and _plain(node.value))


def _plain(node: ast.expr) -> bool:
    """An expression that reads literals and names and does nothing."""
    good = (ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Dict, ast.expr_context, ast.UnaryOp, ast.USub)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "const":
        return True
    return bool(evaluate(node)) or all(isinstance(part, good) for part in ast.walk(node))


def _bound_here(node: ast.stmt) -> set[str]:
    """Global names that a top-level statement binds when it runs."""
    return bound(ast.Module([node], []))

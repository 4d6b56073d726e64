# SPDX-License-Identifier: Apache-2.0
"""Python's rules for which names are local, for code that rewrites a module (modules.py, references.py)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # short names, in the order in which they are given
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bound(node: ast.AST) -> set[str]:
    """Names that are local to a function, lambda, comprehension or class body."""
    names: set[str] = set()
    foreign: set[str] = set()
    if isinstance(node, FUNCTIONS):
        a = node.args
        names.update(p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if p is not None)
        body: list[ast.AST] = list(node.body) if isinstance(node.body, list) else [node.body]
    elif isinstance(node, COMPREHENSIONS):
        body = [generator.target for generator in node.generators]
    else:
        body = list(node.body) if isinstance(node, ast.ClassDef | ast.Module) else []

    def walk(part: ast.AST, inner: bool = False) -> None:
        """inner: inside a comprehension, where only `:=` binds."""
        if isinstance(part, ast.Name) and not inner and not isinstance(part.ctx, ast.Load):
            names.add(part.id)
        elif isinstance(part, ast.NamedExpr):
            names.add(part.target.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
            return
        elif isinstance(part, ast.Lambda):
            return
        elif isinstance(part, ast.ExceptHandler) and part.name:
            names.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in part.names)
        elif isinstance(part, ast.Global | ast.Nonlocal):
            foreign.update(part.names)
        for child in ast.iter_child_nodes(part):
            walk(child, inner or isinstance(part, COMPREHENSIONS))

    for part in body:
        walk(part)
    return names - foreign


def identifiers(node: ast.AST) -> Iterator[str]:
    """All names of variables that a piece of code binds or reads, in whatever scope."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.arg):
            yield part.arg
        elif isinstance(part, ast.Global | ast.Nonlocal):
            yield from part.names
        elif isinstance(part, ast.alias):
            yield part.asname or part.name
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            yield part.name or ""


class Scoped(ast.NodeTransformer):
    """Visits a module's code, knowing which names are local. `scopes`: (is a class body, its names), innermost last."""

    def __init__(self) -> None:
        self.scopes: list[tuple[bool, set[str]]] = []

    def is_local(self, name: str) -> bool:
        """Class bodies are seen only from directly inside."""
        for depth, (is_class, names) in enumerate(reversed(self.scopes)):
            if name in names and (not is_class or depth == 0):
                return True
        return False

    def locals(self) -> set[str]:
        """Every name that would hide a global here."""
        return {
            name
            for depth, (is_class, names) in enumerate(reversed(self.scopes))
            if not is_class or depth == 0
            for name in names
        }

    def is_class_name(self, name: str) -> bool:
        """Bound in the class body that is being visited: read there, it may be the global of that name."""
        return bool(self.scopes) and self.scopes[-1][0] and name in self.scopes[-1][1]

    def within(self, node: ast.AST, parts: list[Any]) -> list[Any]:
        """Visit `parts` in the scope that `node` opens."""
        known = getattr(node, "_bound", None)
        names = bound(node) if known is None else known
        node._bound = names  # type: ignore[attr-defined]  # folding must not turn a local into a global
        self.scopes.append((isinstance(node, ast.ClassDef), names))
        try:
            return self.many(parts)
        finally:
            self.scopes.pop()

    def many(self, parts: list[Any]) -> list[Any]:
        out: list[Any] = []
        for part in parts:
            found = part if part is None else self.visit(part)
            out += found if isinstance(found, list) else [found] if found is not None or part is None else []
        return out

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = self.many(node.decorator_list)
        node.args.defaults = self.many(node.args.defaults)
        node.args.kw_defaults = self.many(node.args.kw_defaults)
        node.body = self.within(node, node.body) or [ast.Pass()]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = function

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.args.defaults = self.many(node.args.defaults)
        node.args.kw_defaults = self.many(node.args.kw_defaults)
        node.body = self.within(node, [node.body])[0]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = self.many(node.decorator_list)
        node.bases = self.many(node.bases)
        node.keywords = self.many(node.keywords)
        node.body = self.within(node, node.body) or [ast.Pass()]
        return node

    def comprehension(self, node: Any) -> ast.AST:
        first = node.generators[0]
        first.iter = self.visit(first.iter)
        inner: list[tuple[Any, str, bool]] = []
        for generator in node.generators:
            inner += [(generator, "target", False), (generator, "ifs", True)]
            if generator is not first:
                inner.append((generator, "iter", False))
        inner += [(node, name, False) for name in ("elt", "key", "value") if hasattr(node, name)]
        for owner, name, several in inner:
            value = getattr(owner, name)
            found = self.within(node, value if several else [value])
            setattr(owner, name, found if several else found[0])
        return node  # type: ignore[no-any-return]

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

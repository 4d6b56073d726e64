# SPDX-License-Identifier: Apache-2.0
"""Short names for parameters that no caller passes by keyword (shorten.py).

A .mpy holds the names of a function's parameters for calls such as `f(size=1)`, and names of other locals not at all.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgefleet.artifacts.scopes import COMPREHENSIONS, FUNCTIONS, LETTERS, bound, identifiers

_BINDERS = (ast.For, ast.AsyncFor, ast.comprehension, ast.NamedExpr, ast.withitem, ast.AugAssign)


class Parameters:
    """Decides, before anything is renamed, which functions no caller can pass parameters by keyword."""

    def __init__(self, trees: Mapping[str, ast.Module], api: Collection[tuple[str, str]]) -> None:
        """trees: by bundle. api: (bundle, name there) of functions and classes that applications get."""
        program = _Callers(trees, api)
        self.keywords = program.keywords
        self.chosen = {
            id(node) for tree in trees.values() for node, owner in _functions(tree) if not program.keeps(node, owner)
        }

    def shorten(self, tree: ast.Module) -> None:
        """Rename in one bundle, in place, where that makes it smaller."""
        stays = stored(tree, self.chosen) | self.keywords
        for node, _ in _functions(tree):
            if id(node) not in self.chosen:
                continue
            taken = {name for part in _inside(node) for name in identifiers(part)} | bound(node) | self.keywords
            free = (letter for letter in LETTERS if letter not in taken)
            for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg):
                if arg and arg.arg not in stays and _plain(node, arg.arg):
                    _rename(node, arg, next(free, arg.arg))


class _Callers:
    """What callers can know of parameters.

    keywords: names that some call passes by keyword. kept: functions called by applications, or with `**`; "" if that
    cannot be told, and so may be any.
    """

    def __init__(self, trees: Mapping[str, ast.Module], api: Collection[tuple[str, str]]) -> None:
        self.nodes = [node for tree in trees.values() for node in ast.walk(tree)]
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        self.keywords = {word.arg for call in calls for word in call.keywords if word.arg}
        self.kept: set[str] = set()
        self.statements = [statement for tree in trees.values() for statement in tree.body]
        self._followed: set[tuple[str, int]] = set()
        for statement in self.statements:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and any(word.arg is None for word in node.keywords):
                    self._follow(node.func, statement)
        self.classes = self._api_classes({name for _, name in api})
        functions = [(name, node) for name, tree in trees.items() for node in tree.body]
        self.api = {id(node) for bundle, node in functions if (bundle, getattr(node, "name", "")) in api}

    def _follow(self, value: ast.AST, statement: ast.stmt) -> None:
        """Keep every function that `value`, an expression in a top-level statement, may stand for."""
        name = _terminal(value)
        place = (name, id(statement) if isinstance(value, ast.Name) else 0)
        if place in self._followed:
            return
        self._followed.add(place)
        self.kept.add(name)
        found = list(_values(statement, name, False)) if isinstance(value, ast.Name) else []
        sources = [(statement, part) for part in found]
        if not found:
            sources = [(other, part) for other in self.statements for part in _values(other, name, True)]
        if not sources:
            self.kept.add("")
        for other, part in sources:
            if isinstance(part, ast.ClassDef):
                self.kept.add("__init__")
            if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._follow(part, other)

    def _api_classes(self, found: set[str]) -> set[str]:
        """Classes of applications, with those they are made of and those that are made of them."""
        while True:
            before = len(found)
            for node in self.nodes:
                if isinstance(node, ast.ClassDef):
                    bases = {_terminal(base) for base in node.bases}
                    if node.name in found:
                        found |= bases
                    elif bases & found:
                        found.add(node.name)
                elif isinstance(node, ast.alias) and node.asname and found & {node.name, node.asname}:
                    found |= {node.name, node.asname}
            if len(found) == before:
                return found

    def keeps(self, node: Any, owner: ast.AST) -> bool:
        """May a caller that is not seen here, or not clearly, pass its parameters by keyword?"""
        if node.args.kwarg or "" in self.kept:
            return True
        if isinstance(node, ast.Lambda):
            return False
        private = node.name[0] == "_" and node.name[:2] != "__"
        if isinstance(owner, ast.ClassDef) and owner.name in self.classes and not private:
            return True
        return node.name in self.kept or id(node) in self.api


def _terminal(node: ast.AST | None) -> str:
    """`f` of f and x.f; "" for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _values(statement: ast.stmt, name: str, outside: bool) -> Iterator[ast.AST]:
    """What is bound to `name` in a top-level statement: definitions and expressions; Pass() where that is not clear.

    outside: only what can be seen from other statements, as a global or an attribute.
    """
    todo: list[tuple[ast.AST, bool]] = [(statement, True)]
    while todo:
        node, shared = todo.pop()
        seen = shared or not outside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            yield node
        elif isinstance(node, ast.alias):
            if seen and (node.asname or node.name) == name:
                yield ast.Attribute(ast.Name(""), node.name)
        elif isinstance(node, ast.arg):
            if node.arg == name and not outside:
                yield ast.Pass()
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if _terminal(target) == name and (seen or isinstance(target, ast.Attribute)):
                    yield node.value
                elif not isinstance(target, ast.Name | ast.Attribute) and _stores(target, name, seen):
                    yield ast.Pass()
        elif isinstance(node, _BINDERS):
            bound_here: ast.expr | None = getattr(node, "target", None) or getattr(node, "optional_vars", None)
            if bound_here and _stores(bound_here, name, seen):
                yield ast.Pass()
        inner = shared and not isinstance(node, (*FUNCTIONS, *COMPREHENSIONS))
        todo += [(child, inner) for child in ast.iter_child_nodes(node)]


def _stores(target: ast.expr, name: str, seen: bool) -> bool:
    parts = [part for part in ast.walk(target) if isinstance(part, ast.Name | ast.Attribute)]
    return any(_terminal(part) == name and (seen or isinstance(part, ast.Attribute)) for part in parts)


# --- parameters


def _functions(node: ast.AST) -> Iterator[tuple[Any, ast.AST]]:
    """(function or lambda, the class, module or other node that it stands in), outer ones first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child, node
        yield from _functions(child)


def stored(tree: ast.AST, renamed: Collection[int]) -> set[str]:
    """Names that the .mpy has for other reasons than the parameters of the functions `renamed`."""
    found = {"self"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, FUNCTIONS) and id(node) not in renamed:
            found.update(arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
    return found | bound(tree)


def _plain(function: ast.AST, name: str) -> bool:
    """`name` stands for nothing but the parameter, or what assignments put there, and no class body reads it."""
    for part in ast.walk(function):
        if isinstance(part, ast.Global | ast.Nonlocal) and name in part.names:
            return False
        if isinstance(part, ast.alias) and (part.asname or part.name) == name:
            return False
        inner = isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler) and part is not function
        if inner and getattr(part, "name", None) == name:
            return False
        if isinstance(part, ast.ClassDef) and name in identifiers(part):
            return False
    return True


def _rename(function: Any, arg: ast.arg, new: str) -> None:
    """Rename a parameter wherever it is read or assigned. Its old name is left as annotation, which costs no bytes."""
    old = arg.arg

    def walk(node: ast.AST) -> None:
        """In the parameter's own scope, or one that sees it."""
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
        if not isinstance(node, (*FUNCTIONS, *COMPREHENSIONS)):
            for child in ast.iter_child_nodes(node):
                walk(child)
            return
        outside = _outside(node)
        for child in outside:
            walk(child)
        if old not in bound(node):
            for child in _inside(node):
                walk(child)

    arg.arg = new
    if not isinstance(function, ast.Lambda):
        arg.annotation = ast.Constant(old)
    for child in _inside(function):
        walk(child)


def _outside(node: Any) -> list[ast.AST]:
    """What of a function or comprehension is evaluated where it stands."""
    if isinstance(node, COMPREHENSIONS):
        return [node.generators[0].iter]
    parts = [*node.args.defaults, *(part for part in node.args.kw_defaults if part)]
    return parts + list(getattr(node, "decorator_list", []))


def _inside(node: Any) -> list[ast.AST]:
    """What of a function or comprehension is evaluated in its own scope."""
    if isinstance(node, COMPREHENSIONS):
        first, *others = node.generators
        elements = [getattr(node, name) for name in ("elt", "key", "value") if hasattr(node, name)]
        return [first.target, *first.ifs, *others, *elements]
    return list(node.body) if isinstance(node.body, list) else [node.body]

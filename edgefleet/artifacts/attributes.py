# SPDX-License-Identifier: Apache-2.0
"""Short names for the private attributes of objects (shorten.py).

`_name` is renamed where every access in the whole program is `self._name` in a method of a class of the program. So it
is known which objects have it, and classes that are not related may give the same letter to different attributes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping

from edgefleet.artifacts.modules import Comment
from edgefleet.artifacts.scopes import COMPREHENSIONS, FUNCTIONS, LETTERS, bound

_FOREIGN = ""  # the class of objects of which it is not known what they are


def shorten_attributes(trees: Mapping[str, ast.Module], importable: Collection[str]) -> None:
    """Rename in place. importable: classes that applications can derive theirs from; they stay as they are."""
    if any(_lists_names(node) for tree in trees.values() for node in ast.walk(tree)):
        return
    classes = [node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    families = _families(classes, trees, importable)
    owners: dict[str, set[str]] = {}
    places: dict[str, list[ast.Attribute]] = {}
    classes_of: dict[str, set[str]] = {}
    files: dict[str, int] = {}
    for tree in trees.values():
        owned = _owned(tree)
        here = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        for node in here:
            owners.setdefault(node.attr, set()).add(families.get(owned.get(id(node), ""), _FOREIGN))
            places.setdefault(node.attr, []).append(node)
            classes_of.setdefault(node.attr, set()).add(owned.get(id(node), ""))
        for name in {node.attr for node in here}:
            files[name] = files.get(name, 0) + 1
    texts = words(trees.values())
    defined = {name for tree in trees.values() for part in ast.walk(tree) for name in _defined(part)}
    taken: dict[str, set[str]] = {}
    notes: dict[str, list[str]] = {}
    for name in sorted(owners, key=lambda name: (-files[name] * len(name), name)):
        private = name[0] == "_" and name[:2] != "__" and _FOREIGN not in owners[name]
        if not private or name in defined or _made_of(name, texts):
            continue
        used = {letter for family in owners[name] for letter in taken.get(family, ())}
        letter = next((c for c in LETTERS if c not in used and c not in owners and c not in texts | defined), name)
        for family in owners[name]:
            taken.setdefault(family, set()).add(letter)
        for node in places[name]:
            node.attr = letter
        for owner in classes_of[name]:
            notes.setdefault(owner, []).append(f"{letter} is {name}")
    for tree in trees.values():
        for part in list(tree.body):
            if isinstance(part, ast.ClassDef) and part.name in notes:
                text = f"# {part.name}: {', '.join(sorted(notes[part.name]))}"
                tree.body.insert(tree.body.index(part), Comment(text))


def _lists_names(node: ast.AST) -> bool:
    """Can code see from here which attributes an object has? Not so where it is certainly a module."""
    if isinstance(node, ast.Attribute) and node.attr == "__dict__":
        return not ast.unparse(node.value).startswith("sys.modules[")
    return isinstance(node, ast.Name) and node.id == "dir"


def words(trees: Collection[ast.Module]) -> set[str]:
    """Identifiers in the string literals: what getattr() and its like may be called with."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.findall(r"\w+", node.value))
    return found


def _made_of(name: str, texts: Collection[str]) -> bool:
    """Is it one of these texts, or could it be put together of two of them, or of one like `_RESET` and any other?"""
    parts = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
    return name in texts or any(
        (head in texts and (tail in texts or len(head) > 1)) or (tail in texts and tail[0] == "_")
        for head, tail in parts
    )


def _defined(node: ast.AST) -> set[str]:
    """Attributes that are there without being assigned to an object."""
    return bound(node) if isinstance(node, ast.ClassDef) else set()


def _families(
    classes: Collection[ast.ClassDef], trees: Mapping[str, ast.Module], importable: Collection[str]
) -> dict[str, str]:
    """Class → the first by name of those it is related to; _FOREIGN if one of them is not of the program alone."""
    names = {node.name for node in classes}
    family = {name: {name} for name in names}
    foreign = names & set(importable)
    same = {
        alias.asname: alias.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    for node in classes:
        if node.decorator_list or node.keywords:
            foreign.add(node.name)
        for base in node.bases:
            name = base.id if isinstance(base, ast.Name) else _FOREIGN
            name = name if name in names else same.get(name, _FOREIGN)
            if name in names:
                joined = family[node.name] | family[name]
                for member in joined:
                    family[member] = joined
            else:
                foreign.add(node.name)
    return {name: _FOREIGN if family[name] & foreign else min(family[name]) for name in names}


def _owned(tree: ast.Module) -> dict[int, str]:
    """id of each `self.x` in a plain method of a top-level class → the class."""
    found: dict[int, str] = {}

    def walk(node: ast.AST, me: str, owner: str) -> None:
        if isinstance(node, (*FUNCTIONS, *COMPREHENSIONS)) and me in bound(node):
            return
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == me:
            found[id(node)] = owner
        for child in ast.iter_child_nodes(node):
            walk(child, me, owner)

    for node in tree.body:
        methods = node.body if isinstance(node, ast.ClassDef) else []
        for method in methods:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.decorator_list:
                arguments = method.args.args
                again = [part for part in ast.walk(method) if isinstance(part, ast.Name) and part.id == "self"]
                if arguments and arguments[0].arg == "self" and all(isinstance(part.ctx, ast.Load) for part in again):
                    for statement in method.body:
                        walk(statement, "self", node.name)  # type: ignore[attr-defined]
    return found

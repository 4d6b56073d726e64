# SPDX-License-Identifier: Apache-2.0
"""Shorter names for what a linked program alone can see: last step of the linker (link.py).

A .mpy carries the text of every name in it once, so a name is paid for in each file that has it. What is renamed is
proved from the whole program, all bundles at once; what cannot be proved keeps its name, and so do functions, methods
and classes: tracebacks and logs show them. The result depends on the sources alone.
docs/adr/0006-linked-board-files.md says why.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import keyword
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from edgefleet.artifacts.attributes import shorten_attributes, words
from edgefleet.artifacts.modules import INLINE_CHARS, PACKAGE, Comment, evaluate
from edgefleet.artifacts.parameters import Parameters
from edgefleet.artifacts.scopes import COMPREHENSIONS, FUNCTIONS, LETTERS, Scoped, bound, identifiers

_FROM_BYTES = 6  # of bytecode for each name that `from … import` binds
_VIA_BYTES = 2  # more at each use, where it is read as an attribute of its module
_STATEMENT_BYTES = 5  # of bytecode for an import statement itself
_ALIAS_BYTES = 20  # what a second, short name of an export must save: it costs about 8 in the file that has it
_SHORT = 128  # a name of a lower number in its file takes one byte in bytecode, others two
_MANY = 160  # names in a file, from which on it pays to say which get the low numbers


def shorten(
    bundles: Mapping[str, ast.Module], exported: Collection[tuple[str, str]], api: Collection[tuple[str, str]]
) -> None:
    """Rename in place.

    exported: (bundle, name) that must exist. api: (bundle, name) of functions and classes that applications get into
    their hands.
    """
    parameters = Parameters(bundles, api)
    shorten_attributes(bundles, {name for bundle, name in exported if bundle == PACKAGE})
    for bundle, tree in bundles.items():
        if bundle != PACKAGE:
            _read_through_package(tree)
    _exports(bundles)
    _globals(bundles, exported)
    for tree in bundles.values():
        _empty_classes(tree)
        parameters.shorten(tree)
        _order(tree)


class _Globals(Scoped):
    """Calls `found` for each place that stands for a global, and puts there what it returns."""

    def __init__(self, found: Callable[[ast.Name], ast.expr]) -> None:
        super().__init__()
        self.found = found
        self.unclear: set[str] = set()  # bound in a class body, or declared `global`

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self.is_class_name(node.id):
            self.unclear.add(node.id)
        return node if self.is_local(node.id) else self.found(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        self.unclear.update(node.names)
        return node


def _uses(tree: ast.Module) -> Counter[str]:
    """How often each global is read or bound by name; those that cannot be renamed are left out."""
    count: Counter[str] = Counter()

    def found(node: ast.Name) -> ast.expr:
        count[node.id] += 1
        return node

    visitor = _Globals(found)
    visitor.many(tree.body)
    return Counter({name: number for name, number in count.items() if name not in visitor.unclear})


def _replace(tree: ast.Module, new: Mapping[str, ast.expr]) -> None:
    """Put expressions in place of globals."""

    def found(node: ast.Name) -> ast.expr:
        if node.id not in new:
            return node
        value = copy.deepcopy(new[node.id])
        if isinstance(value, ast.Name):
            value.ctx = node.ctx
        return value

    tree.body = _Globals(found).many(tree.body)


def _imports(tree: ast.Module, nested: bool = True) -> Iterator[tuple[ast.ImportFrom, ast.alias]]:
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, alias


def _read_through_package(tree: ast.Module) -> None:
    """`from edgeagent import x` → `import edgeagent` for names that are used once or twice."""
    if PACKAGE in identifiers(tree):
        return
    uses = _uses(tree)
    names = {
        alias.asname or alias.name: alias.name
        for node, alias in _imports(tree, nested=False)
        if node.module == PACKAGE and uses[alias.asname or alias.name]
    }
    through = {local: name for local, name in names.items() if uses[local] * _VIA_BYTES < _FROM_BYTES}
    gain = sum(_FROM_BYTES - uses[local] * _VIA_BYTES for local in through)
    if len(through) < len(names):
        gain -= _STATEMENT_BYTES
    if gain <= 0:
        return
    for node, alias in list(_imports(tree, nested=False)):
        if node.module == PACKAGE and (alias.asname or alias.name) in through:
            node.names.remove(alias)
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom) or node.names]
    package = ast.Name(PACKAGE, ast.Load())
    _replace(tree, {local: ast.Attribute(package, name, ast.Load()) for local, name in through.items()})
    tree.body.insert(0, ast.Import([ast.alias(PACKAGE)]))


def _exports(bundles: Mapping[str, ast.Module]) -> None:
    """A short second name for what many files import."""
    users: dict[tuple[str, str], list[ast.Module]] = {}
    for tree in bundles.values():
        found = {(str(node.module), alias.name) for node, alias in _imports(tree)}
        found |= {(PACKAGE, node.attr) for node in _attributes(tree) if _of_package(node)}
        for place in found:
            if place[0] in bundles and place[1] in bound(bundles[place[0]]):
                users.setdefault(place, []).append(tree)
    kept = {id(tree): _kept(tree) for tree in bundles.values()}
    taken = {name for tree in bundles.values() for name in identifiers(tree)}
    taken |= {part for bundle in bundles for part in bundle.split(".")}
    for place in sorted(users):
        saved = sum(len(place[1]) - 2 for tree in users[place] if place[1] not in kept[id(tree)])
        if saved >= _ALIAS_BYTES:
            new = _two_letters(place, taken)
            taken.add(new)
            _alias(bundles, users[place], *place, new)


def _two_letters(place: tuple[str, str], taken: Collection[str]) -> str:
    """Made of the name alone: a file of another version gets what it means by them, or an ImportError."""
    digest = b""
    while True:
        digest = hashlib.sha256(".".join(place).encode() + digest).digest()
        found = LETTERS[digest[0] % len(LETTERS)] + LETTERS[digest[1] % len(LETTERS)]
        if found not in taken and not keyword.iskeyword(found):
            return found


def _attributes(tree: ast.Module) -> list[ast.Attribute]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def _of_package(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == PACKAGE


def _kept(tree: ast.Module) -> set[str]:
    """Names that a file has even if it does not import them."""
    found = {alias.asname or alias.name for node, alias in _imports(tree)}
    reads = {node.attr for node in _attributes(tree) if not _of_package(node)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return reads | texts | (bound(tree) - found)


def _alias(bundles: Mapping[str, ast.Module], users: Sequence[ast.Module], bundle: str, name: str, new: str) -> None:
    body = bundles[bundle].body
    last = max(number for number, node in enumerate(body) if name in bound(ast.Module([node], [])))
    body.insert(last + 1, ast.Assign([ast.Name(new, ast.Store())], ast.Name(name, ast.Load())))
    for tree in users:
        tree.body.insert(0, Comment(f"# {new} is {name}"))
    for tree in users:
        uses = _uses(tree)
        for read in _attributes(tree):
            if bundle == PACKAGE and _of_package(read) and read.attr == name:
                read.attr = new
        for node, alias in _imports(tree):
            if (node.module, alias.name) != (bundle, name):
                continue
            local = alias.asname or name
            alias.name = new
            if node not in tree.body or not uses[local]:
                alias.asname = local
            else:
                alias.asname = None
                _replace(tree, {local: ast.Name(new)})


def _globals(bundles: Mapping[str, ast.Module], exported: Collection[tuple[str, str]]) -> None:
    """Names of data and of imports that stay within their file."""
    imported = {(str(node.module), alias.name) for tree in bundles.values() for node, alias in _imports(tree)}
    attributes = {node.attr for tree in bundles.values() for node in _attributes(tree)}
    texts = words(list(bundles.values()))
    for bundle, tree in bundles.items():
        uses = _uses(tree)
        own = [n for s in tree.body if isinstance(s, ast.Assign) for n in sorted(bound(ast.Module([s], [])))]
        own += [alias.asname for node, alias in _imports(tree, nested=False) if alias.asname]
        stay = {getattr(node, "name", "") for node in ast.walk(tree)} | attributes | texts
        stay |= {name for place, name in {*exported, *imported} if place == bundle}
        chosen = [n for n in dict.fromkeys(own) if len(n) > 1 and n[:2] != "__" and uses[n] and n not in stay]
        chosen = _inline(tree, chosen)
        taken = set(identifiers(tree))
        new = dict(zip(chosen, (letter for letter in LETTERS if letter not in taken), strict=False))
        _replace(tree, {old: ast.Name(letter) for old, letter in new.items()})
        for _, alias in _imports(tree, nested=False):
            alias.asname = new.get(alias.asname or "", alias.asname)
        tree.body[:0] = [Comment(f"# {letter} is {old}") for old, letter in new.items()]


def _inline(tree: ast.Module, names: Sequence[str]) -> list[str]:
    """Puts constants that cannot change, of the globals `names`, in place of them; the names that are left.

    A file has equal constants once, so this saves the global and costs nothing.
    """
    stores = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    values: dict[str, ast.expr] = {}
    for node in list(tree.body):
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id in names:
            found = evaluate(node.value)
            if stores[target.id] == 1 and found:
                values[target.id] = ast.parse(repr(found[0]), mode="eval").body
                tree.body.remove(node)
    _replace(tree, values)
    return [name for name in names if name not in values]


def _empty_classes(tree: ast.Module) -> None:
    """`class A(B): pass` → `A = type("A", (B,), {})`, which needs no function for its body."""
    if "type" in bound(tree):
        return
    for number, node in enumerate(tree.body):
        if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
            continue
        if all(isinstance(part, ast.Pass) for part in node.body):
            arguments = [ast.Constant(node.name), ast.Tuple(node.bases, ast.Load()), ast.Dict([], [])]
            call = ast.Call(ast.Name("type", ast.Load()), arguments, [])
            tree.body[number] = ast.Assign([ast.Name(node.name, ast.Store())], call)


def _order(tree: ast.Module) -> None:
    """Give the names that are used most the low numbers.

    mpy-cross numbers names in the order in which it meets them, even in code that it finds cannot be reached.
    """
    count = _references(tree)
    if len(count) < _MANY:
        return
    names = [name for name in count if name.isidentifier() and not keyword.iskeyword(name)]
    chain: ast.expr = ast.Name("self", ast.Load())
    for name in sorted(names, key=lambda name: (-count[name], name))[:_SHORT]:
        chain = ast.Attribute(chain, name, ast.Load())
    tree.body.insert(0, Comment("# never runs: its names get the shortest encoding"))
    tree.body.insert(1, ast.While(ast.Constant(1), [ast.Break(), ast.Expr(chain)], []))


def _references(tree: ast.Module) -> Counter[str]:
    """About how often the bytecode refers to each name."""
    count: Counter[str] = Counter()

    def walk(node: ast.AST, local: frozenset[str]) -> None:
        if isinstance(node, (*FUNCTIONS, *COMPREHENSIONS)):
            local |= bound(node)
        if isinstance(node, ast.Name):
            count.update({node.id} - local)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) <= INLINE_CHARS:
            count[node.value] += 1
        for found in (getattr(node, field, None) for field in ("attr", "arg", "name")):
            if isinstance(found, str):
                count[found] += 1
        for child in ast.iter_child_nodes(node):
            if not isinstance(node, ast.arg):  # the annotation is not compiled
                walk(child, local)

    walk(tree, frozenset())
    return count

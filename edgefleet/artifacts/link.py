# SPDX-License-Identifier: Apache-2.0
"""Joins the portable modules into few files for a board, each with one flat name space (scope hoisting).

What a board imports at its start becomes one resident bundle, the package `edgeagent` itself. What is imported inside a
function stays a module of its own, under its own name, with what only it needs; it is loaded and dropped as before.
Names resolve to the one definition; colliding and shadowed ones get their module as prefix; what nobody uses is left
out, and a function that only one lazy bundle uses moves there. docs/adr/0006-linked-board-files.md says why.
Everything that cannot be proved safe is a LinkError with file and line. The result depends on the sources alone.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgefleet.artifacts.modules import PACKAGE, Comment, LinkError, Program, Target
from edgefleet.artifacts.references import Item, Lazy, Use, items
from edgefleet.artifacts.shorten import shorten


def link(
    root: Path,
    *,
    resident: Sequence[str],
    loaded_by_name: Mapping[str, Collection[str]],
    public: Mapping[str, str],
    public_modules: Mapping[str, str],
    handed_out: Mapping[str, str] | None = None,
    dynamic: Collection[str] = (),
    platform: str = "",
) -> dict[str, str]:
    """Module name → source of each bundle; the resident one is `edgeagent`.

    root: the folder that holds the package.
    resident: what a board imports at its start.
    loaded_by_name: module → names it must offer, for those that are imported by a name made at run time; the modules
    in `dynamic` do that.
    public: name → module that defines it, importable from the package. public_modules: name → "MODULE NAME NAME …":
    `from edgeagent import log; log.info(…)` (the package itself, which holds those names).
    handed_out: class → its module, where applications get an object of it without importing it.
    platform: the board's sys.platform; "" if it may be any.
    Raises LinkError.
    """
    program = Program(root, platform)
    found = _Linker(program, dynamic)
    found.collect([PACKAGE, *resident, *loaded_by_name])
    for name, module in public.items():
        found.export(PACKAGE, name, found.member(module, name))
    visible = [*public.items(), *(handed_out or {}).items()]
    for text in public_modules.values():
        module, *members = text.split()
        for name in members:
            found.export(PACKAGE, name, found.member(module, name))
            visible.append((name, module))
    found.group([PACKAGE, *resident], loaded_by_name)
    for module, names in loaded_by_name.items():
        for name in names:
            found.export(found.bundle_of[module], name, found.member(module, name))
    found.reach()
    found.move()
    return found.sources(sorted(public_modules), [found.member(module, name) for name, module in visible])


class _Linker:
    """Decides what lies in which bundle."""

    def __init__(self, program: Program, dynamic: Collection[str]) -> None:
        self.program = program
        self.dynamic = dynamic
        self.items: dict[str, list[Item]] = {}  # by module
        self.definition: dict[Target, Item] = {}
        self.bundle_of: dict[str, str] = {}  # module → bundle
        self.exports: dict[str, dict[str, Target]] = {}  # bundle → {name it must have: what}
        self.live: list[Item] = []
        self.names: dict[str, _Names] = {}

    def member(self, module: str, name: str) -> Target:
        target = self.program.member(module, name)
        if target is None or target.kind != "def":
            raise LinkError(f"{self.program.modules[module].path}:1: has no {name}")
        return target

    def export(self, bundle: str, name: str, target: Target) -> None:
        names = self.exports.setdefault(bundle, {})
        if names.setdefault(name, target) != target:
            raise LinkError(f"{bundle}: two things are to be called {name}: {names[name]}, {target}")

    def collect(self, roots: Iterable[str]) -> None:
        """Load all modules that can be reached, and analyse each."""
        for root in roots:
            self.program.load(root)
        while todo := [name for name in self.program.modules if name not in self.items]:
            for name in todo:
                module = self.program.modules[name]
                self.items[name] = items(self.program, module, self.dynamic)
                for item in self.items[name]:
                    for defined in item.names:
                        self.definition[Target("def", name, defined)] = item

    def lazies(self) -> list[Lazy]:
        return [lazy for module in self.program.modules for item in self.items[module] for lazy in item.lazies]

    def needed(self, start: str, stop: Collection[str]) -> list[str]:
        """`start` and all that it imports when it is loaded, not going past `stop`."""
        found: list[str] = []
        todo = [start]
        while todo:
            name = todo.pop()
            if name not in found and (name == start or name not in stop):
                found.append(name)
                todo += self.program.modules[name].needs
                if "." in name:
                    todo.append(name.rpartition(".")[0])
        return found

    def group(self, resident: Sequence[str], loaded_by_name: Collection[str]) -> None:
        """One bundle of what is resident, one for each module that is loaded on demand, with what it alone needs.

        What several of those need is a bundle too: the largest sets that always come together. Packages are resident.
        """
        packages = [name for name, module in self.program.modules.items() if module.path.name == "__init__.py"]
        here = {name for root in (*resident, *packages) for name in self.needed(root, ())}
        wanted = dict.fromkeys([*(lazy.source for lazy in self.lazies()), *loaded_by_name])
        entries = [name for name in wanted if name not in here]
        users: dict[str, list[str]] = {}
        for entry in entries:
            for name in self.needed(entry, {*here, *entries}):
                users.setdefault(name, []).append(entry)
        for name in self.program.modules:  # in loading order: the last of a set imports the others
            self.bundle_of[name] = PACKAGE
        shared: dict[tuple[str, ...], str] = {}
        for name, owners in users.items():
            if name in entries or len(owners) == 1:
                self.bundle_of[name] = name if name in entries else owners[0]
            else:
                self.bundle_of[name] = shared.setdefault(tuple(sorted(owners)), name)
        for module, found in self.items.items():
            for item in found:
                item.home = self.bundle_of[module]
        for lazy in self.lazies():
            if lazy.target.kind == "mod" and not lazy.free:
                self._whole(lazy.target.module)

    def _whole(self, name: str) -> None:
        """A module object that is handed around offers all its public names."""
        module = self.program.modules[name]
        if self.bundle_of[name] != name:
            raise LinkError(f"{module.path}:1: is used as an object, and is no bundle of its own")
        for public in sorted(module.names):
            if public[0] != "_" and Target("def", name, public) in self.definition:
                self.export(name, public, Target("def", name, public))

    def reach(self) -> None:
        """Keep what has an effect, what is public, and what that uses."""
        todo = [item for found in self.items.values() for item in found if not item.pure]
        todo += [self.definition[target] for names in self.exports.values() for target in names.values()]
        kept: set[Item] = set()
        while todo:
            item = todo.pop()
            if item not in kept:
                kept.add(item)
                todo += [self.definition[target] for target in item.targets if target in self.definition]
        self.live = [item for found in self.items.values() for item in found if item in kept]

    def move(self) -> None:
        """Functions and constants of the resident bundle that only one other bundle uses go there."""
        public = {target for names in self.exports.values() for target in names.values()}
        moved = True
        while moved:
            moved = False
            homes: dict[Item, set[str]] = {}
            for item in self.live:
                for target in item.targets:
                    other = self.definition.get(target)
                    if other is not None and other is not item:
                        homes.setdefault(other, set()).add(item.home)
            for item in self.live:
                own = {Target("def", item.module.name, name) for name in item.names}
                users = homes.get(item, set())
                if item.home != PACKAGE or item.fixed or own & public or len(users) != 1 or PACKAGE in users:
                    continue
                if any(self.program.changes(target) for target in item.targets):
                    continue
                (item.home,) = users
                moved = True

    def home(self, target: Target) -> str:
        if target not in self.definition:
            path = self.program.modules[target.module].path
            raise LinkError(f"{path}:1: {target.name} is not defined on this board, and is used")
        return self.definition[target].home

    def through_alias(self, use: Use, bundle: str) -> bool:
        """Read at run time from the module object of another bundle, which a function has imported."""
        if not use.alias or self.home(use.target) in (bundle, PACKAGE):
            return False
        if self.home(use.target) != self.bundle_of[use.via]:
            raise LinkError(f"{use.via}: {use.target.name} is read through {use.alias} and lies elsewhere")
        return True

    def sources(self, public_modules: Sequence[str], visible: Sequence[Target]) -> dict[str, str]:
        """Name → source of each bundle. visible: what applications get into their hands."""
        bundles = sorted({item.home for item in self.live})
        packages = sorted({name.rpartition(".")[0] for name in bundles} - {"", *bundles})
        for bundle in bundles:
            below = {name[len(bundle) + 1 :].split(".")[0] for name in bundles if name.startswith(bundle + ".")}
            self.names[bundle] = _Names(self, bundle, below | set(public_modules if bundle == PACKAGE else ()))
        for names in self.names.values():
            for target in names.foreign:
                there = target.kind == "def" and self.names[self.home(target)].final[target]
                names.add(target, there or target.name or target.module)
        parts = {bundle: _Writer(self, bundle).parts(public_modules, packages) for bundle in bundles}
        trees = {bundle: ast.Module(found, []) for bundle, found in parts.items()}
        exported = {(PACKAGE, name) for name in public_modules}
        for bundle, targets in self.exports.items():
            exported |= {(bundle, name) for name in targets}
            exported |= {(bundle, self.names[bundle].final[target]) for target in targets.values()}
        finals = [(bundle, target, name) for bundle, own in self.names.items() for target, name in own.final.items()]
        api = {(bundle, name) for bundle, target, name in finals if target in visible and self.home(target) == bundle}
        shorten(trees, exported, api)
        return {bundle: "".join(_text(part) + "\n" for part in tree.body) for bundle, tree in trees.items()}


def _text(part: ast.stmt) -> str:
    return part.text if isinstance(part, Comment) else ast.unparse(ast.fix_missing_locations(part))


class _Names:
    """The final name of everything in one bundle."""

    def __init__(self, linker: _Linker, bundle: str, reserved: Collection[str]) -> None:
        self.linker = linker
        self.bundle = bundle
        self.exported = linker.exports.get(bundle, {})
        self.final: dict[Target, str] = {}
        self.taken = set(reserved)
        self._hidden: dict[Target, set[str]] = {}
        self._pinned: set[Target] = set()
        self.foreign: list[Target] = []  # in the order of their first use
        for item in linker.live:
            if item.home != bundle:
                continue
            self.taken |= item.builtins
            for use in item.uses:
                if linker.through_alias(use, bundle):
                    continue
                self._hidden.setdefault(use.target, set()).update(use.hidden)
                if use.pinned:
                    self._pinned.add(use.target)
                if use.target not in self.foreign and (use.target.kind == "ext" or linker.home(use.target) != bundle):
                    self.foreign.append(use.target)
            for lazy in item.lazies:
                self._hidden.setdefault(lazy.target, set()).update(lazy.hidden)
        clash = self.taken.intersection(self.exported)
        if clash:
            raise LinkError(f"{bundle}: public names hide builtins or modules: {', '.join(sorted(clash))}")
        own = [Target("def", i.module.name, name) for i in linker.live if i.home == bundle for name in i.names]
        public = list(self.exported.values())
        for target in sorted(own, key=lambda target: target not in public):
            self.add(target, target.name)

    def add(self, target: Target, name: str) -> None:
        """The first that asks for a name keeps it; others get the name of their module in front."""
        wanted = name
        hidden = self._hidden.get(target, set())
        others = {public for public, what in self.exported.items() if what != target}
        while name in self.taken or name in hidden or name in others:
            name = target.module.rpartition(".")[2] + "_" + name
        if name != wanted and target in self._pinned:
            raise LinkError(f"{target.module}: {wanted} must keep its name for a class body, and cannot")
        self.taken.add(name)
        self.final[target] = name


class _Writer(ast.NodeTransformer):
    """The source of one bundle."""

    def __init__(self, linker: _Linker, bundle: str) -> None:
        self.linker = linker
        self.names = linker.names[bundle]
        self.bundle = bundle

    def parts(self, modules: Sequence[str], packages: Sequence[str]) -> list[ast.stmt]:
        """modules: public names of the package for itself. packages: to be loaded, so that
        dropping what lies in them finds them.
        """
        body: list[ast.stmt] = []
        module = ""
        for item in self.linker.live:
            if item.home == self.bundle:
                if item.module.name != module:
                    module = item.module.name
                    body.append(Comment(f"# {module}"))
                body.append(self.visit(item.node))
        aliases = sorted(
            (name, final) for name, target in self.names.exported.items() if (final := self.names.final[target]) != name
        )
        tail = [f"{name} = {final}" for name, final in aliases]
        if self.bundle == PACKAGE:
            tail += [f"__import__({name!r})" for name in packages]
            tail += [f"{' = '.join(modules)} = __import__({PACKAGE!r})"] if modules else []
        return [*ast.parse("\n".join(self.imports())).body, *body, *ast.parse("\n".join(tail)).body]

    def imports(self) -> list[str]:
        """Firmware modules, then names of other bundles."""
        plain: list[str] = []
        others: dict[str, list[str]] = {}
        for target in self.names.foreign:
            name = self.names.final[target]
            if target.kind == "ext" and not target.name:
                plain.append(f"import {target.module}" + ("" if name == target.module else f" as {name}"))
                continue
            source, there = target.module, target.name
            if target.kind == "def":
                source = self.linker.home(target)
                there = self.linker.names[source].final[target]
                if self.linker.program.changes(target):
                    raise LinkError(f"{target.module}: {target.name} changes, and is used by the bundle {self.bundle}")
            others.setdefault(source, []).append(there + ("" if name == there else f" as {name}"))
        named = [f"from {source} import {', '.join(sorted(names))}" for source, names in sorted(others.items())]
        return sorted(plain) + named

    def visit_Name(self, node: ast.Name) -> ast.AST:
        use = getattr(node, "_link", None)
        if use:
            node.id = self.names.final[use.target]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        use: Use | None = getattr(node, "_link", None)
        if use is None:
            return self.generic_visit(node)
        if self.linker.through_alias(use, self.bundle):
            node.attr = self.linker.names[self.linker.home(use.target)].final[use.target]
            return node
        return ast.copy_location(ast.Name(self.names.final[use.target], node.ctx), node)

    def defined(self, node: Any) -> ast.AST:
        use = getattr(node, "_link", None)
        if use:
            node.name = self.names.final[use.target]
        self.generic_visit(node)
        if not node.body:
            node.body = [ast.Pass()]
        return node  # type: ignore[no-any-return]

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = defined

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self.names.final[use.target] for use in node._link]  # type: ignore[attr-defined]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        lazy: Lazy | None = getattr(node, "_link", None)
        if lazy is None:
            return node
        if lazy.target.kind == "mod":
            bundle = self.linker.bundle_of[lazy.target.module]
            if lazy.free and bundle in (self.bundle, PACKAGE):
                return ast.copy_location(ast.Pass(), node)
            node.module, _, name = bundle.rpartition(".")
        else:
            node.module = self.linker.home(lazy.target)
            name = self.linker.names[node.module].final[lazy.target]
            if node.module == self.bundle:
                return ast.Assign([ast.Name(lazy.local, ast.Store())], ast.Name(name, ast.Load()))
        node.names = [ast.alias(name, None if name == lazy.local else lazy.local)]
        return node

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        gone = {
            local
            for local, module in getattr(node, "_modules", {}).items()
            if self.linker.bundle_of[module] in (self.bundle, PACKAGE)
        }
        self.generic_visit(node)
        node.targets = [part for part in node.targets if not isinstance(part, ast.Name) or part.id not in gone]
        return node if node.targets else ast.copy_location(ast.Pass(), node)

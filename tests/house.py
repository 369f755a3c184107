"""The package as data: its modules, their syntax trees, and what they import from each other.

`test_layers.py` judges this checkout and the small trees that it plants by the same rules, so nothing
here knows any rule, and nothing imports the code that it reads.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

NAME = "dynarch"


@dataclass(frozen=True)
class Import:
    """One imported name, written out in full from the root of its package."""

    line: int
    target: str
    relative: bool
    lazy: bool


@dataclass(frozen=True)
class Module:
    """One file of the package: `spaces/errors.py`, known to Python as `dynarch.spaces.errors`."""

    root: Path
    path: str

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_facade(self) -> bool:
        return self.path.endswith("__init__.py")

    @property
    def parts(self) -> tuple[str, ...]:
        return (NAME, *self.path.removesuffix(".py").removesuffix("__init__").strip("/").split("/"))

    @property
    def dotted(self) -> str:
        return ".".join(part for part in self.parts if part)

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def calls(self) -> list[tuple[ast.Call, str]]:
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return [(node, self.resolve(node.func)) for node in nodes]

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        inner = {id(node) for function in self.functions for node in ast.walk(function)}
        return tuple(
            Import(node.lineno, target, isinstance(node, ast.ImportFrom) and node.level > 0, id(node) in inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
            for target, _ in self._targets(node)
        )

    @cached_property
    def aliases(self) -> dict[str, str]:
        """What each imported name stands for: `{"np": "numpy", "load": "torch.load"}`."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        pairs = [pair for node in nodes for pair in self._targets(node)]
        return {local: local if target.startswith(f"{local}.") else target for target, local in pairs}

    def resolve(self, node: ast.expr) -> str:
        """The dotted name that an expression spells, or an empty text."""
        if isinstance(node, ast.Subscript):
            return self.resolve(node.value)
        if isinstance(node, ast.Attribute):
            return f"{self.resolve(node.value)}.{node.attr}"
        return self.aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def _targets(self, node: ast.Import | ast.ImportFrom | ast.Call) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            folder = self.dotted.split(".") if self.is_facade else self.dotted.split(".")[:-1]
            above = folder[: len(folder) - node.level + 1] if node.level else []
            for alias in node.names:
                yield ".".join([*above, *filter(None, [node.module]), alias.name]), alias.asname or alias.name
        elif self.resolve(node.func) in ("__import__", "importlib.import_module") and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value, named.value


class House:
    """The modules of the packages that `pyproject.toml` lists, and what they import from each other."""

    def __init__(self, root: Path) -> None:
        tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
        folders = {package: package.replace(".", "/").removeprefix(NAME).strip("/") for package in tool["packages"]}
        globs = [f"{folder}/*.py".lstrip("/") for folder in folders.values()]
        for package, patterns in tool.get("package-data", {}).items():
            globs += [f"{folders[package]}/{p}".lstrip("/") for p in patterns if p.endswith(".py")]
        paths = {path.relative_to(root).as_posix() for pattern in globs for path in root.glob(pattern)}
        self.modules = [Module(root, path) for path in sorted(paths)]
        self.by_name = {module.dotted: module for module in self.modules}

    def owner(self, target: str) -> str | None:
        """The module that holds a dotted name: the name itself, or what stands before its last dot."""
        return next((name for name in (target, target.rpartition(".")[0]) if name in self.by_name), None)

    def edges(self) -> dict[str, set[str]]:
        """Which modules each module imports. A package that is merely passed through does not count."""
        return {
            module.dotted: {owner for found in module.imports if (owner := self.owner(found.target))}
            for module in self.modules
        }


class Classes:
    """Every class of the package, with its bases followed through imports and facades."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.nodes = {
            f"{module.dotted}.{node.name}": (module, node)
            for module in house.modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        }

    def bases(self, name: str) -> list[str]:
        module, node = self.nodes[name]
        return [self._follow(module, module.resolve(base)) for base in node.bases]

    def _follow(self, module: Module, dotted: str) -> str:
        """Where a class is defined, however many facades hand it on."""
        local = f"{module.dotted}.{dotted}"
        if local in self.nodes:
            return local
        owner = self.house.owner(dotted)
        if dotted in self.nodes or owner is None or owner == module.dotted:
            return dotted
        facade = self.house.by_name[owner]
        head, _, rest = dotted.removeprefix(f"{owner}.").partition(".")
        onward = facade.aliases.get(head, head)
        return self._follow(facade, f"{onward}.{rest}" if rest else onward)

    def unfinished(self, name: str) -> set[str]:
        """The abstract methods that a class leaves to its subclasses."""
        module, node = self.nodes[name]
        inherited = [self.unfinished(base) for base in self.bases(name) if base in self.nodes]
        given, owed = set[str](), set[str]()
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = {module.resolve(mark) for mark in item.decorator_list}
                (owed if "abc.abstractmethod" in marks else given).add(item.name)
            elif isinstance(item, ast.Assign):
                given |= {target.id for target in item.targets if isinstance(target, ast.Name)}
            elif isinstance(item, ast.AnnAssign) and item.value and isinstance(item.target, ast.Name):
                given.add(item.target.id)
        return set[str]().union(*inherited) - given | owed

    def is_abstract(self, name: str) -> bool:
        _, node = self.nodes[name]
        if node.name.lstrip("_").startswith("Abstract") or node.name.endswith("Contract"):
            return True
        roots = {base.rpartition(".")[2] for base in self.bases(name) if base not in self.nodes}
        return bool(roots & {"ABC", "Protocol", "DeclarativeBase"} or self.unfinished(name))

"""The laws of the house that a syntax tree can show, each with a planted breach that must be caught.

    service -> search -> evaluators -> hardware -> spaces        "->": may import

Every rule yields one line for each breach, and takes the package as data, so that the same code judges
this checkout and the small trees that the tests plant.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dynarch.tests.house import NAME, Classes, House, Module

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("spaces", "hardware", "evaluators", "search", "service")  # lowest first
TOP = ("__init__", "__main__")  # stand above every layer
LONGEST_FILE = 350

SQL = ("hardware/database.py", "hardware/table.py", "search/ledger*.py", "*/migrations/*")
FENCES: dict[str, tuple[str, ...]] = {
    "ray": ("search/tune.py", "search/tune/*"),
    "mlflow": ("search/tracking*.py", "search/tracking/*"),
    "optuna": ("search/samplers.py", "search/samplers/*"),
    "sqlalchemy": (*SQL, "hardware/database/*", "hardware/table/*", "search/ledger/*"),
    "alembic": (*SQL, "hardware/database/*", "hardware/table/*", "search/ledger/*"),
    "pytest": ("*/testing.py",),
    **dict.fromkeys(("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"), ()),
}
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "yaml.load": "builds any object; use yaml.safe_load",
    "yaml.full_load": "builds objects; use yaml.safe_load",
    "yaml.unsafe_load": "builds any object; use yaml.safe_load",
}
# (file, imported library) -> why the import cannot stand at the top of its file.
LAZY_IMPORTS: dict[tuple[str, str], str] = {
    ("hardware/onnx_runtime.py", "onnxruntime"): "optional, and slow to load: only for devices of that kind",
    ("hardware/energy.py", "pynvml"): "optional: only where an NVIDIA GPU is asked for its energy",
    # Every worker and every command loads the package, and few do what these are for (seconds each).
    ("evaluators/data/embedded.py", "sklearn"): "only for the embedded digits",
    ("hardware/correction.py", "scipy"): "only where a correction is fitted",
    ("hardware/roofline.py", "scipy"): "only where an unmeasured part is predicted",
    ("hardware/roofline.py", "sklearn"): "likewise",
    ("search/bundle/run.py", "torch"): "a bundle runs with either of the two, and the other may be absent",
    ("search/bundle/run.py", "onnxruntime"): "likewise",
    ("search/storage.py", "dynarch"): "MLflow",
    ("search/handle.py", "dynarch"): "Ray: only where a search is run",
    ("search/frame.py", "pandas"): "only where a frame is asked for",
    ("search/gallery.py", "dynarch"): "pictures, likewise",
    ("search/report.py", "dynarch"): "pictures, with two libraries that draw them",
}


def rank(dotted: str) -> int:
    """The storey of a module; the root's own files live in the attic, and so do unknown names."""
    first = dotted.split(".")[1] if "." in dotted else ""
    return LAYERS.index(first) if first in LAYERS else len(LAYERS)


def imports_point_down(house: House, module: Module) -> Iterator[str]:
    if module.parts[1] not in (*LAYERS, *TOP, ""):
        yield f"{module.path}: no layer is called {module.parts[1]!r}"
    for found in module.imports:
        if found.target.split(".")[0] != NAME:
            continue
        if not found.relative:
            yield f"{module.path}:{found.line}: imports {found.target} by its absolute name"
        if module.path == "spaces/errors.py":
            yield f"{module.path}:{found.line}: errors stand below everything, yet import {found.target}"
        elif rank(found.target) > rank(module.dotted):
            yield f"{module.path}:{found.line}: imports {found.target}, which stands above it"


def libraries_stay_fenced(house: House, module: Module) -> Iterator[str]:
    for found in module.imports:
        places = FENCES.get(found.target.split(".")[0])
        if places is not None and not any(fnmatch(module.path, place) for place in places):
            allowed = ", ".join(places) or "nowhere"
            yield f"{module.path}:{found.line}: imports {found.target} (allowed: {allowed})"


def imports_stand_at_the_top(house: House, module: Module) -> Iterator[str]:
    for found in module.imports:
        if found.lazy and (module.path, found.target.split(".")[0]) not in LAZY_IMPORTS:
            yield f"{module.path}:{found.line}: imports {found.target} inside a function"


def lazy_imports_are_needed(house: House) -> Iterator[str]:
    found = {(m.path, item.target.split(".")[0]) for m in house.modules for item in m.imports if item.lazy}
    for path, library in sorted(set(LAZY_IMPORTS) - found):
        yield f"LAZY_IMPORTS: {path} no longer imports {library}"


def contracts_stay_out(house: House, module: Module) -> Iterator[str]:
    for found in module.imports:
        owner = house.owner(found.target) or ""
        if owner.endswith(".testing") and not module.path.endswith("testing.py"):
            yield f"{module.path}:{found.line}: imports {owner}, which needs pytest"


def files_are_short_and_named(house: House, module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{module.path}: {lines} lines, more than {LONGEST_FILE}"
    for part in {"util", "utils", "helper", "helpers"}.intersection(module.parts):
        yield f"{module.path}: {part!r} says nothing about what is inside"


def calls_are_safe(house: House, module: Module) -> Iterator[str]:
    for call, name in module.calls:
        keywords = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        where = f"{module.path}:{call.lineno}: {name}"
        if name in FORBIDDEN_CALLS:
            yield f"{where} {FORBIDDEN_CALLS[name]}"
        if name == "torch.load" and keywords.get("weights_only") is not True:
            yield f"{where} without weights_only=True runs what a pickle says"
        if keywords.get("allow_pickle") is True:
            yield f"{where} with allow_pickle=True runs what a pickle says"
        if name == "print" and module.parts[1] != "service":
            yield f"{where} outside the command line"


def signatures_are_closed(house: House, module: Module) -> Iterator[str]:
    for function in module.functions:
        if function.args.kwarg:
            yield f"{module.path}:{function.lineno}: {function.name} takes **{function.args.kwarg.arg}"


def imports_form_no_circle(house: House) -> Iterator[str]:
    """Names the strongly connected components: modules that reach themselves through each other."""
    edges = house.edges()
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += edges[name]
        reached[start] = seen
    circles = {frozenset(b for b in reached[a] if a in reached[b]) for a in edges if a in reached[a]}
    yield from sorted(f"import circle: {', '.join(sorted(circle))}" for circle in circles)


def classes_are_abstract_or_final(house: House) -> Iterator[str]:
    classes = Classes(house)
    errors = f"{NAME}.spaces.errors."
    for name in classes.nodes:
        for base in classes.bases(name):
            both_errors = name.startswith(errors) and base.startswith(errors)
            if base in classes.nodes and not classes.is_abstract(base) and not both_errors:
                yield f"{name} subclasses {base}, which is concrete"


MODULE_RULES: tuple[Callable[[House, Module], Iterator[str]], ...] = (
    imports_point_down,
    libraries_stay_fenced,
    imports_stand_at_the_top,
    contracts_stay_out,
    files_are_short_and_named,
    calls_are_safe,
    signatures_are_closed,
)
HOUSE_RULES: tuple[Callable[[House], Iterator[str]], ...] = (
    imports_form_no_circle,
    classes_are_abstract_or_final,
    lazy_imports_are_needed,
)
HOUSE = House(ROOT)


def plant(root: Path, files: dict[str, str]) -> House:
    """A small package of these files."""
    packages = sorted({".".join((NAME, *Path(path).parent.parts)) for path in files})
    (root / "pyproject.toml").write_text(f"[tool.setuptools]\npackages = {packages}\n", encoding="utf-8")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return House(root)


@pytest.mark.parametrize("rule", MODULE_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("module", HOUSE.modules, ids=lambda module: module.path)
def test_module_keeps_the_rule(module: Module, rule: Callable[[House, Module], Iterator[str]]) -> None:
    assert list(rule(HOUSE, module)) == []


@pytest.mark.parametrize("rule", HOUSE_RULES, ids=lambda rule: rule.__name__)
def test_house_keeps_the_rule(rule: Callable[[House], Iterator[str]]) -> None:
    assert list(rule(HOUSE)) == []


def test_allowed_lazy_imports_are_passed_and_stale_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = plant(tmp_path, {"spaces/a.py": "def f():\n    import json.decoder"})
    for allowed in tuple(LAZY_IMPORTS):
        monkeypatch.delitem(LAZY_IMPORTS, allowed)
    monkeypatch.setitem(LAZY_IMPORTS, ("spaces/a.py", "json"), "slow to import")
    monkeypatch.setitem(LAZY_IMPORTS, ("spaces/a.py", "csv"), "slow to import")
    assert [line for module in house.modules for line in imports_stand_at_the_top(house, module)] == []
    assert list(lazy_imports_are_needed(house)) == ["LAZY_IMPORTS: spaces/a.py no longer imports csv"]


def test_median_file_length_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = [len(m.text.splitlines()) for m in HOUSE.modules if not m.is_facade]
    with capsys.disabled():
        print(f" [{len(lengths)} files, median {statistics.median(lengths):.0f} lines] ", end="")
    assert lengths, "the package has files"


ABSTRACT = "from abc import ABC, abstractmethod\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\n"
FINISHED = "from .a import Shape\nclass Square(Shape):\n    def area(self): ...\n"

# (rule, files of the planted tree, a part of the breach that must be reported; None: nothing may be)
PLANTED: tuple[tuple[Callable[..., Iterator[str]], dict[str, str], str | None], ...] = (
    (imports_point_down, {"spaces/a.py": "from ..hardware.b import c", "hardware/b.py": ""}, "stands above"),
    (imports_point_down, {"hardware/a.py": "from .. import Problem"}, "stands above"),
    (imports_point_down, {"search/a.py": "import dynarch.spaces"}, "absolute"),
    (imports_point_down, {"spaces/errors.py": "from .a import b", "spaces/a.py": ""}, "below everything"),
    (imports_point_down, {"shared.py": ""}, "no layer"),
    (
        imports_point_down,
        {"service.py": "from .search import a\nfrom .spaces.b import c\nimport torch"},
        None,
    ),
    (libraries_stay_fenced, {"search/engine.py": "from ray import tune"}, "ray.tune"),
    (libraries_stay_fenced, {"service.py": "import mlflow.tracking as t"}, "mlflow.tracking"),
    (libraries_stay_fenced, {"search/tune.py": "import optuna"}, "search/samplers.py"),
    (libraries_stay_fenced, {"hardware/keys.py": "from sqlalchemy import orm"}, "sqlalchemy.orm"),
    (libraries_stay_fenced, {"search/engine.py": "import alembic"}, "alembic"),
    (libraries_stay_fenced, {"search/a.py": "import importlib as i\ni.import_module('ray')"}, "imports ray"),
    (libraries_stay_fenced, {"spaces/a.py": "import pickle"}, "nowhere"),
    (libraries_stay_fenced, {"spaces/a.py": "import pytest"}, "*/testing.py"),
    (
        libraries_stay_fenced,
        {"search/tune/run.py": "import ray", "search/ledger_rows.py": "import alembic"},
        None,
    ),
    (
        libraries_stay_fenced,
        {"hardware/migrations/v1.py": "import alembic", "spaces/a.py": "import rayon"},
        None,
    ),
    (imports_stand_at_the_top, {"spaces/a.py": "def f():\n    import json"}, "inside a function"),
    (imports_stand_at_the_top, {"spaces/a.py": "try:\n    import onnx\nexcept ImportError: ..."}, None),
    (contracts_stay_out, {"spaces/__init__.py": "from .testing import a", "spaces/testing.py": ""}, "pytest"),
    (
        contracts_stay_out,
        {"search/testing.py": "from ..spaces.testing import a", "spaces/testing.py": ""},
        None,
    ),
    (files_are_short_and_named, {"spaces/a.py": "x = 1\n" * 351}, "351 lines"),
    (files_are_short_and_named, {"spaces/a.py": "x = 1\n" * 350}, None),
    (files_are_short_and_named, {"search/utils.py": ""}, "'utils'"),
    (files_are_short_and_named, {"search/helpers/a.py": ""}, "'helpers'"),
    (calls_are_safe, {"search/a.py": "print(1)"}, "command line"),
    (calls_are_safe, {"spaces/a.py": "import torch\ntorch.load('x')"}, "weights_only"),
    (
        calls_are_safe,
        {"spaces/a.py": "from torch import load as l\nl('x', weights_only=False)"},
        "weights_only",
    ),
    (calls_are_safe, {"spaces/a.py": "import torch.nn\ntorch.load('x')"}, "weights_only"),
    (calls_are_safe, {"spaces/a.py": "import numpy as np\nnp.load('x', allow_pickle=True)"}, "allow_pickle"),
    (calls_are_safe, {"spaces/a.py": "import yaml\nyaml.load('x')"}, "safe_load"),
    (calls_are_safe, {"spaces/a.py": "eval('1')"}, "text as code"),
    (calls_are_safe, {"spaces/a.py": "exec('1')"}, "text as code"),
    (
        calls_are_safe,
        {"service.py": "print(1)", "spaces/a.py": "import torch\ntorch.load('x', weights_only=True)"},
        None,
    ),
    (calls_are_safe, {"spaces/a.py": "import yaml\nyaml.safe_load('x')\nmodel.eval()"}, None),
    (signatures_are_closed, {"spaces/a.py": "def f(a, **rest): ..."}, "**rest"),
    (signatures_are_closed, {"spaces/a.py": "def f(*parts, b): g(**b)"}, None),
    (
        imports_form_no_circle,
        {"spaces/a.py": "from .b import x", "spaces/b.py": "from . import a"},
        "spaces.a, ",
    ),
    (
        imports_form_no_circle,
        {"spaces/a.py": "from . import x", "spaces/__init__.py": "from .a import y"},
        "circle",
    ),
    (
        imports_form_no_circle,
        {"spaces/a.py": "from .b import x", "spaces/__init__.py": "from .a import y"},
        None,
    ),
    (
        classes_are_abstract_or_final,
        {"spaces/a.py": "class A: ...\nclass B(A): ..."},
        "subclasses dynarch.spaces.a.A",
    ),
    (
        classes_are_abstract_or_final,
        {
            "spaces/a.py": ABSTRACT,
            "spaces/b.py": FINISHED,
            "spaces/c.py": "from . import b\nclass C(b.Square): ...",
        },
        "subclasses dynarch.spaces.b.Square",
    ),
    (
        classes_are_abstract_or_final,
        {
            "spaces/a.py": "class A: ...",
            "spaces/__init__.py": "from .a import A",
            "search/b.py": "from ..spaces import A\nclass B(A): ...",
        },
        "subclasses dynarch.spaces.a.A",
    ),
    (classes_are_abstract_or_final, {"spaces/a.py": ABSTRACT, "spaces/b.py": FINISHED}, None),
    (classes_are_abstract_or_final, {"spaces/errors.py": "class A(Exception): ...\nclass B(A): ..."}, None),
)


@pytest.mark.parametrize(("rule", "files", "breach"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_sees_what_is_planted(
    tmp_path: Path, rule: Callable[..., Iterator[str]], files: dict[str, str], breach: str | None
) -> None:
    house = plant(tmp_path, files)
    assert len(house.modules) == len(files)
    found = list(rule(house)) if rule in HOUSE_RULES else [x for m in house.modules for x in rule(house, m)]
    assert (found == []) if breach is None else any(breach in line for line in found), found


def test_files_outside_the_listed_packages_are_not_judged(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.setuptools]\npackages = ['dynarch.spaces']\n", encoding="utf-8")
    for folder in ("spaces", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("print(1)", encoding="utf-8")
    assert [module.path for module in House(tmp_path).modules] == ["spaces/a.py"]

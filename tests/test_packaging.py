"""What is installed is the package, all of it, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dynarch.search.tune.package import stage

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
# Top-level folders that are of the repository and not of the package; hidden ones go without saying.
NOT_SHIPPED = ("tests", "benchmarks", "docs", "examples", "build", "dist", "dynarch-results")


def shipped_folders() -> list[Path]:
    tops = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    tops = [p for p in tops if p.name not in (*NOT_SHIPPED, "__pycache__") and p.suffix != ".egg-info"]
    inner = [p for top in tops for p in top.rglob("*") if p.is_dir() and p.name != "__pycache__"]
    return [*tops, *inner]


def package_name(folder: Path) -> str:
    return ".".join(("dynarch", *folder.relative_to(ROOT).parts))


def folder_of(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def data_files() -> dict[str, set[Path]]:
    """The files that each pattern of package-data stands for."""
    return {
        f"{package}: {pattern}": set(folder_of(package).glob(pattern))
        for package, patterns in SETUPTOOLS.get("package-data", {}).items()
        for pattern in patterns
    }


def test_packages_are_the_folders_with_an_init_file() -> None:
    found = {package_name(folder) for folder in shipped_folders() if (folder / "__init__.py").is_file()}
    assert sorted(found | {"dynarch"}) == sorted(SETUPTOOLS["packages"])


def test_every_pattern_of_package_data_matches() -> None:
    assert [pattern for pattern, files in data_files().items() if not files] == []


def test_no_source_file_is_left_behind() -> None:
    shipped = set[Path]().union(*data_files().values())
    for package in SETUPTOOLS["packages"]:
        shipped |= set(folder_of(package).glob("*.py"))
    present = {p for folder in shipped_folders() for p in folder.iterdir() if p.is_file()}
    assert sorted(str(p.relative_to(ROOT)) for p in present - shipped) == []


def test_what_travels_to_other_nodes_is_what_the_wheel_holds(tmp_path: Path) -> None:
    held = set[Path]().union(*data_files().values())
    for package in SETUPTOOLS["packages"]:
        held |= set(folder_of(package).glob("*.py"))
    place = stage(tmp_path)
    assert place == tmp_path / "dynarch"
    assert {file.relative_to(place) for file in place.rglob("*") if file.is_file()} == {
        p.relative_to(ROOT) for p in held
    }


def declared_requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


@pytest.mark.parametrize("requirement", declared_requirements(), ids=lambda requirement: requirement.name)
def test_constraints_pin_what_is_declared(requirement: Requirement) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    version = pins.get(canonicalize_name(requirement.name))
    assert version, f"constraints.txt does not pin {requirement.name}"
    assert "+" not in version, "a local build is on no public index"
    assert requirement.specifier.contains(version)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that the checkout gets no build folder that a later one picks up."""
    place = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "dynarch-results")
    shutil.copytree(ROOT, place / "source", ignore=left_out)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place / "dist")]
    built = subprocess.run([*command, str(place / "source")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (place / "dist").glob("dynarch-*.whl")
    return found


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = wheel.name.split("-py3")[0] + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"dynarch", info}
    assert f"{info}/licenses/LICENSE" in names
    expected = {str(p.relative_to(ROOT)) for files in data_files().values() for p in files}
    for package in SETUPTOOLS["packages"]:
        expected |= {str(p.relative_to(ROOT)) for p in folder_of(package).glob("*.py")}
    assert {name.removeprefix("dynarch/") for name in names if name.startswith("dynarch/")} == expected


@pytest.mark.slow
def test_installed_wheel_answers_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def answer(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = answer(sys.executable, "-c", "import dynarch; print(dynarch.__file__)")
    assert Path(where.strip()) == site / "dynarch" / "__init__.py"
    as_module = answer(sys.executable, "-m", "dynarch.service", "--help")
    as_script = answer(str(site / "bin" / "dynarch"), "--help")
    for text in (as_module, as_script):
        assert re.search(r"\bsearch\b", text), "the help names the command `search`"

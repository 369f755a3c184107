"""`dynarch init` and the published schema: what they give is a spec, and what is no spec is refused by both."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from dynarch import load_spec
from dynarch.search.spec_schema import spec_schema
from dynarch.service import app
from dynarch.spaces.errors import StoreError

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("**/*.toml"))
SCHEMA = spec_schema()


def told(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def uncommented(text: str) -> str:
    """The spec with every option that it only shows."""
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def test_init_writes_a_spec_that_can_be_run(tmp_path: Path) -> None:
    file = tmp_path / "first.toml"
    assert f"dynarch search {file}" in told("init", file)
    problem = load_spec(file)
    assert (problem.strategy.name, problem.data.name) == ("first", "digits")
    assert f"dynarch search {file}" in file.read_text()


def test_every_option_that_it_shows_exists(tmp_path: Path) -> None:
    file = tmp_path / "first.toml"
    told("init", file)
    text = uncommented(file.read_text())
    file.write_text(text)
    assert load_spec(file).constraints[0].minimum == 0.85
    jsonschema.validate(tomllib.loads(text), SCHEMA)
    assert text.count("\n[[constraints]]") == 1


def test_what_a_commented_option_shows_is_its_default(tmp_path: Path) -> None:
    file = tmp_path / "first.toml"
    told("init", file)
    shown: dict[str, Any] = tomllib.loads(uncommented(file.read_text()))
    plain: dict[str, Any] = tomllib.loads(file.read_text())
    for section in ("search", "budget"):
        defaults = {name: option.get("default") for name, option in SCHEMA["properties"][section]["properties"].items()}
        for name in shown[section].keys() - plain[section].keys() - {"minutes", "candidate_minutes"}:
            assert shown[section][name] == defaults[name], name


def test_init_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("mine")
    with pytest.raises(StoreError, match="is there already; name another file, or replace it with --force"):
        told("init", file)
    assert file.read_text() == "mine"
    told("init", file, "--force", "--data", "opinions")
    assert load_spec(file).data.name == "opinions"


def test_the_published_schema_is_the_schema() -> None:
    """Written by `dynarch schema > docs/spec.schema.json`."""
    published = (ROOT / "docs" / "spec.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == SCHEMA
    assert json.loads(told("schema")) == SCHEMA


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_examples_keep_the_schema(example: Path) -> None:
    jsonschema.validate(tomllib.loads(example.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    "mistake",
    [
        "[serch]",
        "[search]\nseeds = 1",
        '[search]\nsampler = "tpee"',
        '[search]\nobjectives = ["acuracy"]',
        '[budget]\ntrials = "many"',
        "[space.families.early_exits]",
        "[space.families.early_exit]\ndecision = ['certainty']",
        "[devices.cpu]\nkind = 'cpi'",
        "[devices.cpu]\nkind = 'cpu'\ncores = 2",
        "[[constraints]]\nminimum = 1.0",
    ],
)
def test_the_schema_and_the_reader_refuse_alike(mistake: str, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(mistake), SCHEMA)
    file = tmp_path / "mistaken.toml"
    file.write_text(mistake)
    with pytest.raises(ValueError):
        load_spec(file)


def test_options_are_explained() -> None:
    """Whatever the docstring of its class says of an option is in the schema."""
    budget = SCHEMA["properties"]["budget"]["properties"]
    assert budget["workers"]["description"] == "candidates trained at the same time."
    assert budget["gpus_per_worker"]["description"].startswith("what Ray reserves for each; a share of a GPU")
    bare = [
        f"{section}.{name}"
        for section in ("search", "budget", "cluster")
        for name, option in SCHEMA["properties"][section]["properties"].items()
        if "description" not in option
    ]
    assert bare == []

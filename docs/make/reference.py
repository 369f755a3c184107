"""Reference pages of the site that are made from the code: commands, specs, families."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.cli import get_docs_for_click

from dynarch.search.spec_schema import spec_schema
from dynarch.service import app
from dynarch.spaces.catalogue import families_table
from dynarch.spaces.families import FAMILIES

Schema = Mapping[str, Any]


def commands_page() -> str:
    """What `dynarch --help` and the help of its commands say."""
    command = typer.main.get_command(app)
    told = get_docs_for_click(obj=command, ctx=typer.Context(command), name="dynarch", title="Command line")
    return re.sub(r"^(\* `[a-z]+`: ).*(\.\.\.)$", lambda match: _whole(match[0], told), told, flags=re.M)


def _whole(cut: str, page: str) -> str:
    """A line of a list of commands as it would be if it were not cut: the section of the command says it whole."""
    begun = cut.partition(": ")[2].removesuffix("...")
    found = re.search(rf"^{re.escape(begun)}.*$", page, re.M)
    return cut if found is None else cut.partition(": ")[0] + ": " + found[0]


def specs_page() -> str:
    """All that a spec file may hold but the families, which have a page of their own."""
    found = spec_schema()["properties"]
    lines = [
        "# Specs",
        "",
        "A spec is a TOML file; every section and every option may be left out. `dynarch init` writes one that tells",
        "what it means, and `dynarch schema` prints what stands here as JSON Schema, for editors.",
        "",
    ]
    for name in ("search", "budget", "data"):
        lines += _section(f"[{name}]", found[name])
    lines += ["## `[space.backbones.NAME]`", "", "Without this section: all that take the data.", ""]
    for name, schema in found["space"]["properties"]["backbones"]["properties"].items():
        lines += _section(f"[space.backbones.{name}]", schema, level=3)
    lines += [
        "## `[space.families.NAME]`",
        "",
        "Options: [Families](families.md). Without this section: all that fit;",
        "",
    ]
    lines += ["an empty `[space.families]`: static networks alone.", ""]
    lines += _section("[space.training]", found["space"]["properties"]["training"])
    lines += ["## `[devices.NAME]`", "", "The first device is the one that policies are tuned for.", ""]
    for schema in found["devices"]["additionalProperties"]["oneOf"]:
        kind = schema["properties"]["kind"]
        options = {name: each for name, each in schema["properties"].items() if name != "kind"}
        title = f'kind = "{kind["const"]}"'
        lines += _section(title, {"description": kind["description"], "properties": options}, level=3)
    lines += _section("[[constraints]]", found["constraints"]["items"] | {"description": "A bound on a metric."})
    lines += _section("[cluster]", found["cluster"])
    return "\n".join(lines)


def families_page() -> str:
    """The table of the README, then the options of each family."""
    found = spec_schema()["properties"]["space"]["properties"]["families"]["properties"]
    lines = ["# Families", "", families_table(), ""]
    for member in FAMILIES:
        lines += _section(member.name, found[member.name])
        place = f"In a spec: `[space.families.{member.name}]`. In Python: `{member.__module__}.{member.__name__}`."
        lines += [f"{place} Source: {member.source}.", ""]
    return "\n".join(lines)


def _section(title: str, schema: Schema, *, level: int = 2) -> list[str]:
    lines = [f"{'#' * level} `{title}`", "", schema.get("description", ""), ""]
    rows = list(_rows(schema, ""))
    if rows:
        lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""]
    return lines


def _rows(schema: Schema, prefix: str) -> Iterator[str]:
    """One row an option; a table inside of another becomes dotted names, backbones inside of a family stay a word."""
    for name, each in schema.get("properties", {}).items():
        told = each.get("description", "")
        inner = each.get("properties")
        if inner is None:
            yield f"| `{prefix}{name}` | {_default(each)} | {_cell(told)}{_choices(each)} |"
        elif all("properties" in one for one in inner.values()):
            yield f"| `{prefix}{name}` | all that fit | {_cell(told)} Tables as in `[space.backbones]`. |"
        else:
            yield from _rows(each, f"{prefix}{name}.")


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return ""
    return "none" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


def _choices(schema: Schema) -> str:
    known = schema.get("enum", schema.get("items", {}).get("enum", ()))
    return f" One of {', '.join(f'`{name}`' for name in known)}." if known else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

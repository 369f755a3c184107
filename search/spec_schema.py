"""Spec schema: what a spec file may hold, as JSON Schema, for editors and for whoever writes specs by program.

It is derived from the classes that read a spec: their types, their defaults, and what their docstrings say of each
option. Rules that need more than one value, such as shares that leave something to train on, are checked by reading.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..evaluators.data import EMBEDDED, Reading
from ..evaluators.evaluators import EVALUATORS
from ..evaluators.metrics import METRICS
from ..evaluators.splits import SplitSpec
from ..hardware.devices import DEVICES
from ..spaces.backbones import BACKBONES
from ..spaces.decisions import DECISIONS
from ..spaces.families import FAMILIES
from ..spaces.gates import GATES
from ..spaces.gradients import GRADIENTS
from ..spaces.little import Little
from ..spaces.recipe import Recipe
from ..spaces.spec import AbstractSpec
from .placement import Cluster
from .problem import SAMPLERS, Budget, Constraint, Strategy

Schema = dict[str, Any]
_PLAIN: Mapping[object, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
_NAMES: Mapping[str, tuple[str, ...]] = {  # options that mean the same wherever they stand
    "sampler": SAMPLERS,
    "evaluator": tuple(member.name for member in EVALUATORS),
    "decision": tuple(member.name for member in DECISIONS),
    "gate": tuple(member.name for member in GATES),
    "gradient": tuple(member.name for member in GRADIENTS),
}
_METRIC = "^(" + "|".join(sorted(metric.name for metric in METRICS)) + ")(@.+)?$"


def spec_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a spec."""
    search = _spec(Strategy)
    metric = {"type": "string", "pattern": _METRIC}
    search["properties"]["objectives"] = {
        "type": "array",
        "items": metric,
        "minItems": 1,
        "default": ["accuracy", "latency_ms"],
        "description": "metrics, such as latency_ms or latency_ms@phone",
    }
    constraint = _spec(Constraint)
    constraint["properties"]["metric"] |= metric
    sections = {
        "search": search,
        "budget": _spec(Budget),
        "data": _data(),
        "space": _space(),
        "devices": _table("name of a device, which metrics use as latency_ms@name", _device()),
        "constraints": {"type": "array", "items": constraint, "description": "bounds on metrics"},
        "cluster": _spec(Cluster),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A search of dynarch",
        "description": "Every section and every option may be left out.",
        **_closed(sections),
    }


def _data() -> Schema:
    made = _spec(Reading)
    embedded = ", ".join(EMBEDDED)
    source = f"an embedded set ({embedded}), or a file or folder, looked up beside the spec"
    made["properties"] = {
        "source": {"type": "string", "default": "digits", "description": source},
        "splits": _spec(SplitSpec),
        **made["properties"],
    }
    return made


def _space() -> Schema:
    backbones = {member.name: _spec(member) for member in BACKBONES}
    families = {member.name: _spec(member) for member in FAMILIES}
    return _closed(
        {
            "backbones": {**_closed(backbones), "minProperties": 1, "description": "left out: all that take the data"},
            "families": {**_closed(families), "description": "left out: all that fit; empty: static networks alone"},
            "training": _spec(Recipe),
        }
    )


def _device() -> Schema:
    node = {"type": "string", "description": "custom resource of the nodes that have this device"}
    kinds = []
    for member in DEVICES:
        options = _options(member)
        kind = {"const": member.kind, "description": _head(member)}
        kinds.append({**_closed({"kind": kind, "node": node, **options}), "required": ["kind"]})
    return {"oneOf": kinds}


def _table(names: str, entries: Schema) -> Schema:
    return {"type": "object", "description": names, "minProperties": 1, "additionalProperties": entries}


def _spec(kind: type[Any]) -> Schema:
    """The table that a class reads."""
    if kind is Little:  # a table of backbones, as that of the space
        return {**_closed({member.name: _spec(member) for member in BACKBONES}), "description": _head(kind)}
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    made = {**_closed(_options(kind)), "description": _head(kind)}
    return {**made, "required": required} if required else made


def _closed(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _options(kind: type[Any]) -> dict[str, Schema]:
    hints, told = get_type_hints(kind), _told(kind)
    options = {}
    for field in dataclasses.fields(kind):
        schema = _named(field.name, _of(hints[field.name]))
        if field.default is not dataclasses.MISSING:
            schema["default"] = _plain(field.default)
        if field.name in told:
            schema["description"] = told[field.name]
        options[field.name] = schema
    return options


def _of(hint: Any) -> Schema:
    """The schema of a type that options have."""
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    if inspect.isclass(hint) and issubclass(hint, AbstractSpec):
        return _spec(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each) for each in inner]}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": _of(inner[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_of(each) for each in inner], "minItems": len(inner)}
    return {"type": "object", "additionalProperties": _of(inner[1]) if len(inner) == 2 else True}


def _named(option: str, schema: Schema) -> Schema:
    names = _NAMES.get(option)
    if names is not None and schema.get("type") == "string":
        return {"enum": list(names)}
    if names is not None and schema.get("items") == {"type": "string"}:
        return {**schema, "items": {"enum": list(names)}, "minItems": 1, "uniqueItems": True}
    return schema


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.to_mapping() if isinstance(value, AbstractSpec) else value


def _head(kind: type[Any]) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def _told(kind: type[Any]) -> dict[str, str]:
    """What the docstring says of each option; one line may be about several."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Args:\n")
    block = re.split(r"\n\s*\n", listed)[0]
    told: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {6,}.*)*)", block, re.MULTILINE):
        told |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return told

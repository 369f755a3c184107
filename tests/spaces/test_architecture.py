from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynarch.spaces.architecture import Architecture, canonical_json, content_id
from dynarch.spaces.errors import SpecError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def small(**changes: Any) -> Architecture:
    parts: dict[str, Any] = {"backbone": {"name": "b"}, "families": {"f": {"at": (1, 2)}}, "training": {"rate": 0.5}}
    return Architecture.of(**{**parts, **changes})


def test_id_is_the_hash_of_the_canonical_text() -> None:
    # The text is written out by hand: keys sorted, no spaces, tuples as lists.
    text = '{"backbone":{"name":"b"},"families":{"f":{"at":[1,2]}},"schema":1,"training":{"rate":0.5}}'
    assert small().canonical == text
    assert small().id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_order_and_container_do_not_matter_but_content_does() -> None:
    assert small() == small(families={"f": {"at": [1, 2]}})
    shuffled = dict(reversed(small(training={"rate": 0.5, "a": 1}).to_mapping().items()))
    assert Architecture.from_mapping(shuffled) == small(training={"a": 1, "rate": 0.5})
    different = [small(), small(backbone={"name": "c"}), small(families={}), small(training={"rate": 0.25})]
    assert len({architecture.id for architecture in different}) == len(set(different)) == 4


def test_parts_are_copies() -> None:
    architecture = small()
    architecture.backbone["name"] = "other"
    architecture.families["f"]["at"].append(3)
    architecture.training.clear()
    assert architecture == small()
    assert architecture.backbone == {"name": "b"}
    assert architecture.families == {"f": {"at": [1, 2]}}
    assert architecture.training == {"rate": 0.5}


@given(json_values)
def test_canonical_text_holds_the_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    assert content_id(value) == content_id(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    ("value", "path"),
    [({"a": [1, math.nan]}, "x.a.1"), ({"a": {"b": -math.inf}}, "x.a.b"), ([{1, 2}], "x.0"), (b"a", "x")],
)
def test_what_json_cannot_hold_is_refused(value: object, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        canonical_json(value, "x")
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"schema": 2}, "architecture.schema"),
        ({"schema": None}, "architecture.schema"),
        ({"extra": {}}, "architecture"),
        ({"backbone": "residual"}, "architecture.backbone"),
        ({"families": []}, "architecture.families"),
        ({"training": None}, "architecture.training"),
    ],
)
def test_bad_documents_name_their_place(change: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.from_mapping({**small().to_mapping(), **change})
    assert caught.value.path == path


def test_missing_parts_and_other_things_are_refused() -> None:
    document = small().to_mapping()
    del document["training"]
    with pytest.raises(SpecError, match="must have exactly the parts"):
        Architecture.from_mapping(document)
    with pytest.raises(SpecError, match=r"^point: must be a table"):
        Architecture.from_mapping([1], "point")

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynarch.spaces.errors import SpecError
from dynarch.spaces.policy import Policy

finite = st.floats(allow_nan=False, allow_infinity=False)
policies = st.builds(
    Policy,
    st.sampled_from(("max_prob", "entropy", "margin", "patience")),
    st.lists(st.none() | finite | st.just(-math.inf), max_size=6).map(tuple),
    st.dictionaries(st.text(min_size=1, max_size=4), finite, max_size=3).map(lambda d: tuple(d.items())),
)


@given(policies)
def test_survives_strict_json(policy: Policy) -> None:
    text = json.dumps(policy.to_dict(), allow_nan=False)  # strict: refuses Infinity and NaN
    assert Policy.from_dict(json.loads(text)) == policy
    assert hash(Policy.from_dict(json.loads(text))) == hash(policy)


def test_minus_infinity_is_written_as_text() -> None:
    assert Policy("margin", (None, -math.inf), (("b", 2.0), ("a", 1.0))).to_dict() == {
        "decision": "margin",
        "thresholds": [None, "-inf"],
        "setting": {"a": 1.0, "b": 2.0},
    }


def test_order_of_settings_does_not_matter() -> None:
    assert Policy("margin", (), (("b", 2.0), ("a", 1.0))) == Policy("margin", (), (("a", 1.0), ("b", 2.0)))


def test_whole_numbers_become_floats() -> None:
    # 1 and 1.0 are equal but print differently, which would give one policy two content ids
    assert json.dumps(Policy("margin", (1,), (("a", 2),)).to_dict()) == json.dumps(
        Policy("margin", (1.0,), (("a", 2.0),)).to_dict()
    )


def test_never_tries_no_exit() -> None:
    assert Policy.never(3).thresholds == (None, None, None)
    assert Policy.never(3).enabled == (False, False, False)
    assert Policy.never(0).thresholds == ()


@pytest.mark.parametrize(
    ("k", "thresholds"),
    [
        (0, (-math.inf, None, None)),
        (2, (None, None, -math.inf)),
        (3, (None, None, None)),  # exit 3 of three early exits is the final head
    ],
)
def test_single_closes_the_network_at_one_exit(k: int, thresholds: tuple[float | None, ...]) -> None:
    assert Policy.single(3, k).thresholds == thresholds


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (Policy("max_prob", (0.91, None, 0.72)), "max_prob 0.91 - 0.72"),
        (Policy("entropy", (None, -math.inf)), "entropy - all"),
        (Policy("patience", (1.5, 1.5), (("keep", 0.25),)), "patience 1.5 1.5 keep=0.25"),
        (Policy.never(4), "full network"),
        (Policy("max_prob", (0.123456,)), "max_prob 0.1235"),
    ],
)
def test_describes_itself(policy: Policy, text: str) -> None:
    assert policy.describe() == text


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"thresholds": []}, "p.decision"),
        ({"decision": "margin"}, "p.thresholds"),
        ({"decision": "", "thresholds": []}, "p.decision"),
        ({"decision": 3, "thresholds": []}, "p.decision"),
        ({"decision": "margin", "thresholds": 0.5}, "p.thresholds"),
        ({"decision": "margin", "thresholds": "-inf"}, "p.thresholds"),
        ({"decision": "margin", "thresholds": [0.5, "0.7"]}, "p.thresholds[1]"),
        ({"decision": "margin", "thresholds": [math.nan]}, "p.thresholds[0]"),
        ({"decision": "margin", "thresholds": [math.inf]}, "p.thresholds[0]"),
        ({"decision": "margin", "thresholds": [True]}, "p.thresholds[0]"),
        ({"decision": "margin", "thresholds": [], "setting": [1]}, "p.setting"),
        ({"decision": "margin", "thresholds": [], "setting": {"a": math.inf}}, "p.setting.a"),
        ({"decision": "margin", "thresholds": [], "setting": {"a": "x"}}, "p.setting.a"),
        ({"decision": "margin", "thresholds": [], "treshold": 1}, "p.treshold"),
    ],
)
def test_bad_specs_name_the_place(mapping: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        Policy.from_dict(mapping, "p")
    assert caught.value.path == path


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(SpecError, match="must be a mapping"):
        Policy.from_dict([], "p")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="may appear once"):
        Policy("margin", (), (("a", 1.0), ("a", 2.0)))
    for k in (-1, 4):
        with pytest.raises(SpecError, match="<= k <="):
            Policy.single(3, k)
    with pytest.raises(SpecError, match="exits >= 0"):
        Policy.never(-1)

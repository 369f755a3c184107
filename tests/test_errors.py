"""The tree of errors is the one drawn, and every error can cross a process border whole."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from dynarch.spaces import errors
from dynarch.spaces.errors import (
    DataError,
    DeviceUnavailableError,
    DynarchError,
    EvaluationFailed,
    InfeasibleError,
    MissingEntryError,
    NewerSchemaError,
    SearchBusyError,
    SearchNotFoundError,
    ShapeError,
    SpecError,
    StoreError,
    UnknownNameError,
)

EXITS = "space.families.early_exit.max_exits"
# One of each, with what str() must say. Written out: a new error needs a row here.
ROWS: tuple[tuple[DynarchError, str], ...] = (
    (DynarchError("all that is ours"), "all that is ours"),
    (SpecError(EXITS, "at most 4; got 9"), f"{EXITS}: at most 4; got 9"),
    (
        UnknownNameError("device", "gpu:0", ("cuda:0", "cpu")),
        "device: 'gpu:0' is not known (known: cpu, cuda:0)",
    ),
    (InfeasibleError("constraints.latency_ms", "below 0.4"), "constraints.latency_ms: below 0.4"),
    (DataError("data.train", "no rows"), "data.train: no rows"),
    (ShapeError("2 x 3 does not fit 4 x 3"), "2 x 3 does not fit 4 x 3"),
    (DeviceUnavailableError("no cuda:0; use cpu"), "no cuda:0; use cpu"),
    (MissingEntryError("not measured: 'a', 'b'", keys=("a", "b")), "not measured: 'a', 'b'"),
    (StoreError("cannot open 'x.db'"), "cannot open 'x.db'"),
    (NewerSchemaError("schema 9 is newer than 3"), "schema 9 is newer than 3"),
    (SearchNotFoundError("no search 'digits'"), "no search 'digits'"),
    (SearchBusyError("held by node-1", holder="node-1"), "held by node-1"),
    (EvaluationFailed("loss is not finite"), "loss is not finite"),
)
ATTRIBUTES: dict[type[DynarchError], dict[str, object]] = {
    SpecError: {"path": EXITS, "message": "at most 4; got 9"},
    UnknownNameError: {"path": "device", "name": "gpu:0", "known": ("cpu", "cuda:0")},
    DataError: {"path": "data.train", "message": "no rows"},
    MissingEntryError: {"keys": ("a", "b")},
    SearchBusyError: {"holder": "node-1"},
    EvaluationFailed: {"cause": "loss is not finite"},
}
CLASSES = {name: c for name, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, BaseException)}
DRAWN_LINE = re.compile(r"^(?P<indent>[ │├└]+)(?P<name>[A-Z]\w+)(?:\((?P<second>\w+)\))?(?:\s+\.(?P<attribute>\w+))?")


def drawn_tree() -> dict[str, tuple[str, str | None, str | None]]:
    """Name -> (parent, second base, attribute), as the docstring draws it under the first blank line."""
    tree: dict[str, tuple[str, str | None, str | None]] = {}
    above: list[tuple[int, str]] = [(-1, "Exception")]
    for line in (errors.__doc__ or "").split("\n\n")[1].splitlines():
        row = DRAWN_LINE.match(line)
        assert row, f"not a line of the tree: {line!r}"
        depth = len(row["indent"])
        while above[-1][0] >= depth:
            above.pop()
        tree[row["name"]] = (above[-1][1], row["second"], row["attribute"])
        above.append((depth, row["name"]))
    return tree


def test_tree_is_the_one_drawn() -> None:
    real = {name: tuple(base.__name__ for base in c.__bases__) for name, c in CLASSES.items()}
    drawn = {name: (parent, *filter(None, [second])) for name, (parent, second, _) in drawn_tree().items()}
    assert real == drawn


def test_every_error_has_its_row() -> None:
    assert {type(error) for error, _ in ROWS} == set(CLASSES.values())


@pytest.mark.parametrize(("error", "text"), ROWS, ids=lambda value: type(value).__name__)
def test_error_says_its_message_plainly(error: DynarchError, text: str) -> None:
    assert str(error) == text  # a KeyError would say repr(text)
    assert "\n" not in text


@pytest.mark.parametrize("error", [error for error, _ in ROWS], ids=lambda error: type(error).__name__)
def test_error_has_the_attributes_drawn(error: DynarchError) -> None:
    _, _, attribute = drawn_tree()[type(error).__name__]
    expected = ATTRIBUTES.get(type(error), {})
    assert attribute is None or attribute in expected
    assert {name: getattr(error, name) for name in expected} == expected


@pytest.mark.parametrize("error", [error for error, _ in ROWS], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_error_survives_a_round_trip(error: DynarchError, way: object) -> None:
    assert callable(way)
    back = way(error)
    assert back is not error
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))


def test_unknown_name_offers_the_nearest() -> None:
    error = UnknownNameError("space.families", "early_exits", ("early_exit", "layer_skip"))
    assert "did you mean 'early_exit'?" in str(error)


def test_spec_error_without_a_place_has_no_colon() -> None:
    assert str(SpecError("", "nothing to search")) == "nothing to search"

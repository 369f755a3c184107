from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import final

import pytest

from dynarch.spaces.errors import SpecError, UnknownNameError
from dynarch.spaces.spec import AbstractSpec, require_name, require_options, require_range


@final
@dataclass(frozen=True)
class Lens(AbstractSpec):
    focus: float
    tint: str = "clear"

    def check(self) -> None:
        require_range("focus", self.focus, 1, 10)
        require_name("tint", self.tint, ("clear", "amber"))


@final
@dataclass(frozen=True)
class Camera(AbstractSpec):
    lenses: tuple[Lens, ...]
    speeds: tuple[int, ...] = (1, 2)
    name: str | None = None
    labels: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        require_options("speeds", self.speeds)


def test_python_and_documents_make_the_same_value() -> None:
    camera = Camera((Lens(2), Lens(3.5, "amber")), (4,), labels={"a": 1})
    document = {
        "lenses": [{"focus": 2.0, "tint": "clear"}, {"focus": 3.5, "tint": "amber"}],
        "speeds": [4],
        "name": None,
        "labels": {"a": 1},
    }
    assert camera.to_mapping() == document
    assert Camera.from_mapping(document) == camera
    assert type(camera.lenses[0].focus) is float  # 2 and 2.0 must not give two ids
    assert Camera.from_mapping({"lenses": []}) == Camera(())


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (3, "space.camera", "must be a table of options, but got 3"),
        ({}, "space.camera.lenses", "must be given"),
        ({"lenses": 3}, "space.camera.lenses", "but got 3"),
        ({"lenses": [{"focus": 2.0}, {"focus": 11}]}, "space.camera.lenses.1.focus", "between 1 and 10, but got 11"),
        ({"lenses": [{"focus": 2.0, "tint": "ambre"}]}, "space.camera.lenses.0.tint", "did you mean 'amber'"),
        ({"lenses": [{"focus": "x"}]}, "space.camera.lenses.0.focus", "but got 'x'"),
        ({"lenses": [{"focus": float("nan")}]}, "space.camera.lenses.0.focus", "finite"),
        ({"lenses": [{}]}, "space.camera.lenses.0.focus", "must be given"),
        ({"lenses": [3]}, "space.camera.lenses.0", "must be Lens, but got 3"),
        ({"lenses": [{"focus": 2.0, "tnit": "amber"}]}, "space.camera.lenses.0.tnit", "did you mean 'tint'"),
        ({"lenses": [], "speeds": []}, "space.camera.speeds", "at least one option"),
        ({"lenses": [], "speeds": [1, 1]}, "space.camera.speeds", "distinct, but got [1, 1]"),
        ({"lenses": [], "speeds": [1, 2.5]}, "space.camera.speeds.1", "but got 2.5"),
        ({"lenses": [], "labels": {"a": "b"}}, "space.camera.labels.a", "but got 'b'"),
    ],
)
def test_errors_name_place_value_and_rule(document: object, path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        Camera.from_mapping(document, "space.camera")
    assert caught.value.path == path
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_unknown_options_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'speeds'") as caught:
        Camera.from_mapping({"lenses": [], "speed": [1]}, "space.camera")
    assert caught.value.path == "space.camera.speed"
    assert caught.value.known == ("labels", "lenses", "name", "speeds")
    with pytest.raises(UnknownNameError) as caught:
        Camera.from_mapping({"lenses": [], "speed": [1]})
    assert caught.value.path == "speed"


def test_the_same_rules_hold_in_python() -> None:
    with pytest.raises(SpecError, match=r"^focus: must be between 1 and 10, but got 0"):
        Lens(0)
    with pytest.raises(UnknownNameError, match=r"^tint: 'red' is not known"):
        Lens(2, "red")
    with pytest.raises(TypeError, match="tnit"):
        Lens(2, tnit="amber")  # type: ignore[call-arg]


def test_an_error_keeps_its_kind_when_seen_from_further_out() -> None:
    error = UnknownNameError("heads.1", "mpl", ("mlp", "linear"))
    outer = error.under("early_exit").under("families")
    assert isinstance(outer, UnknownNameError)
    assert (outer.path, outer.name, outer.known) == ("families.early_exit.heads.1", "mpl", ("linear", "mlp"))
    assert error.under("").path == "heads.1"
    assert SpecError("", "wrong").under("space").path == "space"
    back = pickle.loads(pickle.dumps(outer))
    assert (type(back), str(back)) == (UnknownNameError, str(outer))


def test_options_of_known_names() -> None:
    require_options("heads", ("mlp",), ("mlp", "linear"))
    with pytest.raises(UnknownNameError) as caught:
        require_options("heads", ("mlp", "conv"), ("mlp", "linear"))
    assert caught.value.path == "heads.1"

"""Families that work on some of a backbone's blocks: which blocks, and a few more questions with listed answers.

A member says which blocks fit it, what it asks beside the placement, and what it does to a block. That a field of the
family is asked about is said by the field of the same name in its choice.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

from .backbone import Outline
from .errors import SpecError
from .family import AbstractFamily
from .gated import PLACEMENTS, check_blocks, placed, require_blocks
from .gating import Gating
from .ranges import AbstractRanges
from .scope import Scalar, Scope
from .spec import AbstractSpec, require, require_options


@dataclass(frozen=True)
class AbstractBlockChoice(AbstractSpec):
    """Which blocks; a member adds its own fields behind, and checks those in `check_options`.

    Args:
        blocks: numbers of the blocks, ascending.
    """

    blocks: tuple[int, ...]

    def check(self) -> None:
        """Blocks in order, options possible."""
        check_blocks(self.blocks)
        self.check_options()

    @abc.abstractmethod
    def check_options(self) -> None:
        """Raise `SpecError(field, ...)` where a field other than `blocks` is out of range."""

    @property
    def places(self) -> str:
        """The blocks for tables, such as `0,2`."""
        return ",".join(map(str, self.blocks))


@dataclass(frozen=True)
class AbstractBlockFamily(AbstractFamily):
    """A family that works on some of a backbone's blocks.

    Its `choice_type` is an `AbstractBlockChoice`; each further field of that is a question, and the field of the same
    name here holds the answers: a tuple, or ranges (`AbstractRanges`).

    Args:
        placement: which of the blocks that fit: `all`, `alternate`, `late`; to choose from.
    """

    fits: ClassVar[str]  # what the blocks that fit have in common, for messages: "keeps the shape of its features"
    learning: ClassVar[tuple[str, ...]] = ()  # questions that change how it is trained, and not what runs

    placement: tuple[str, ...] = PLACEMENTS

    @classmethod
    @abc.abstractmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """The blocks that it can work on, ascending."""

    @classmethod
    def possible(cls, answers: Mapping[str, Any]) -> bool:
        """Whether these answers go together; of several questions, some may not be answered yet."""
        return True

    def check(self) -> None:
        """Known placements, possible options: each option is judged by a choice that it leads to."""
        require_options("placement", self.placement, PLACEMENTS)
        answers = {name: _listed(name, options) for name, options in self._questions().items()}
        rows = [row for row in _rows(answers) if self.possible(row)]
        for name, listed in answers.items():
            for index, answer in enumerate(listed):
                row = next((row for row in rows if row[name] is answer), None)
                require(row is not None, f"{name}.{index}", "goes with no other option of this family; leave it out")
                self._judge(name, index, row or {})

    def _judge(self, name: str, index: int, answers: dict[str, Any]) -> None:
        try:
            self.choice_type(blocks=(0,), **answers)  # type: ignore[call-arg]
        except SpecError as error:
            if error.path.partition(".")[0] == name:
                raise error.at(f"{name}.{index}") from None

    def suggest(self, scope: Scope, outline: Outline) -> Any | None:
        """Whether at all (rivals for the blocks are asked about by the space), blocks, then the options."""
        options = self.placements(outline)
        if not options or not (self._rival or scope.boolean("used")):
            return None
        # Backbones differ in how many blocks fit, and a name always means the same range.
        chosen = scope.categorical(f"placement_of_{len(self.fitting(outline))}", tuple(options))
        answers: dict[str, Any] = {}
        for name, given in self._questions().items():
            if isinstance(given, AbstractRanges):
                answers[name] = given.suggest(scope / name, outline)
            else:
                answers[name] = _ask(scope, name, given, [v for v in given if self.possible({**answers, name: v})])
        return self.choice_type(blocks=options[chosen], **answers)  # type: ignore[call-arg]

    def size(self, outline: Outline) -> int:
        """Placements x options, and none where the family is free to stay away."""
        questions = self._questions()
        themes = math.prod(_size(given, outline) for given in questions.values() if isinstance(given, AbstractRanges))
        listed = {name: given for name, given in questions.items() if not isinstance(given, AbstractRanges)}
        rows = sum(map(self.possible, _rows(listed)))
        return len(self.placements(outline)) * themes * rows + (not self._rival)

    def cover(self, outline: Outline) -> Iterator[Any]:
        """Every placement with all options that change what runs."""
        answers = {name: _cover(given, outline) for name, given in self._questions().items()}
        answers |= {name: answers[name][:1] for name in self.learning}
        for chosen in filter(self.possible, _rows(answers)):
            for blocks in self.placements(outline).values():
                yield self.choice_type(blocks=blocks, **chosen)  # type: ignore[call-arg]

    def decisions(self) -> tuple[str, ...]:
        """None: nobody leaves."""
        return ()

    def placements(self, outline: Outline) -> dict[str, tuple[int, ...]]:
        """The different sets of blocks to choose from, by name; none if some question has no answer here."""
        answered = all(_size(given, outline) for given in self._questions().values())
        return placed(self.fitting(outline), self.placement) if answered else {}

    @property
    def _rival(self) -> bool:
        """Whether the space asks if it is there at all."""
        return self.rewrites_blocks or self.forks

    def _questions(self) -> dict[str, Any]:
        names = [each.name for each in dataclasses.fields(self.choice_type)]
        return {name: getattr(self, name) for name in names if name != "blocks"}

    @classmethod
    def require_fit(cls, choice: AbstractBlockChoice, outline: Outline) -> None:
        """Raise unless all blocks of a choice fit.

        Raises:
            SpecError: the path starts at `blocks`.
        """
        require_blocks(choice.blocks, cls.fitting(outline), cls.fits)


@dataclass(frozen=True)
class AbstractGatedFamily(AbstractBlockFamily):
    """A family that puts a choice between branches in the place of each of its blocks.

    Args:
        gating: kinds of gate and gradient estimators.
    """

    rewrites_blocks: ClassVar[bool] = True

    gating: Gating = field(default_factory=Gating)

    def cuts(self, outline: Outline) -> Iterator[Any]:
        """Every placement once: a choice cuts the network alike whatever its branches are."""
        made = {choice.blocks: choice for choice in self.cover(outline)}
        return iter(made.values())

    def schemes(self) -> tuple[str, ...]:
        """The kinds of gate."""
        return self.gating.gate


def channelled(outline: Outline) -> tuple[int, ...]:
    """Blocks whose features are `c x h x w`."""
    return tuple(index for index, shape in enumerate(outline.feature_shapes) if len(shape) == 3)


def dashed(values: Sequence[float | str]) -> str:
    """Several values as one answer, such as `0.25-0.5-1`."""
    return "-".join(value if isinstance(value, str) else f"{value:g}" for value in values)


def _rows(answers: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in product(*answers.values()):
        yield dict(zip(answers, row, strict=True))


def _listed(name: str, given: Any) -> Sequence[Any]:
    if isinstance(given, AbstractRanges):
        return given.listed()
    require_options(name, given)
    answers: Sequence[Any] = given
    return answers


def _ask(scope: Scope, name: str, given: Sequence[Any], possible: Sequence[Any]) -> Any:
    labels: dict[Scalar, Any] = {dashed(each) if isinstance(each, tuple) else each: each for each in possible}
    # A name always means the same range, so a question of which some answers are ruled out is another one.
    whole = len(possible) == len(given)
    return labels[scope.categorical(name if whole else f"{name}_{'_or_'.join(map(str, labels))}", tuple(labels))]


def _size(given: Any, outline: Outline) -> int:
    return given.size(outline) if isinstance(given, AbstractRanges) else len(given)


def _cover(given: Any, outline: Outline) -> Sequence[Any]:
    answers: Sequence[Any] = given.cover(outline) if isinstance(given, AbstractRanges) else given
    return answers

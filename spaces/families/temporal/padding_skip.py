"""Padding skip: chunks that hold nothing but padding are not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ...backbone import AbstractChunk, Outline
from ...block_family import AbstractBlockChoice, AbstractBlockFamily
from ...choice_step import Branch, ChoiceStep
from ...gate import GateUnit
from ...gradients.straight_through import StraightThrough
from ...plan import Plan
from ...spec import AbstractSpec
from .skip_update import dropping, several_chunks


@final
@dataclass(frozen=True)
class PaddingSkipChoice(AbstractBlockChoice):
    """Which chunks are looked at before they are read."""

    def check_options(self) -> None:
        """There are none."""


@final
@dataclass(frozen=True)
class PaddingSkip(AbstractBlockFamily):
    """A rule, not a gate: a chunk without a present step is dropped. It changes no answer and needs no training.

    This is what any system of inputs of unequal length should do, and so the honest baseline of those that skip more.

    Args:
        placement: which of the chunks are looked at; to choose from.

    Source: the rule of packed batches that stop with each sequence, as in Paszke et al., "PyTorch: An Imperative
        Style, High-Performance Deep Learning Library", NeurIPS 2019 (`pack_padded_sequence`).
    """

    name: ClassVar[str] = "padding_skip"
    wing: ClassVar[str] = "temporal"
    switches: ClassVar[str] = "chunk of padding"
    source: ClassVar[str] = "Paszke et al., NeurIPS 2019"
    choice_type: ClassVar[type[AbstractSpec]] = PaddingSkipChoice
    fits: ClassVar[str] = "may hold nothing but padding"
    rewrites_blocks: ClassVar[bool] = True

    placement: tuple[str, ...] = ("all", "late")

    @classmethod
    def fitting(cls, outline: Outline) -> Sequence[int]:
        """All chunks but the first, of inputs of unequal length: no input is empty."""
        return tuple(index for index in several_chunks(outline)[1:] if outline.pads[index])

    def schemes(self) -> tuple[str, ...]:
        """A rule."""
        return ("rule",)

    @classmethod
    def apply(cls, choice: PaddingSkipChoice, plan: Plan) -> None:
        """Put a choice between dropping and reading in the place of each chunk."""
        cls.require_fit(choice, plan.outline)
        for index, number in enumerate(choice.blocks):
            block = plan.block(number)
            assert isinstance(block, AbstractChunk)
            step = ChoiceStep(
                index,
                GateUnit(block.presence(), "presence"),
                (dropping(block), Branch(block, 1.0, id(block))),
                gradient=StraightThrough(),
                knob=None,
                place=(index + 1) / len(choice.blocks),
            )
            plan.replace(number, step)

    @classmethod
    def describe(cls, choice: PaddingSkipChoice) -> str:
        """Such as `skips padding 1,2,3`."""
        return f"skips padding {choice.places}"

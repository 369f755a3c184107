"""What is compared: every registered family, narrowed to one use of it, on a backbone and data that it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar, final

import dynarch as da
from dynarch.benchmarks.mechanisms.sources import Source
from dynarch.spaces.backbone import AbstractBackbone, Signature
from dynarch.spaces.backbones import BACKBONES
from dynarch.spaces.errors import DynarchError
from dynarch.spaces.families import (
    FAMILIES,
    EarlyExit,
    LayerSkipping,
    MixtureOfExperts,
    SlimmableWidth,
)
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.gating import Gating
from dynarch.spaces.resource import Resource
from dynarch.spaces.space import Space, describe
from dynarch.spaces.spec import AbstractSpec

STATIC: Final = "static"
# Wings in the order of their kinds of data.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "sample": ("image", "text", "sequence", "clip"),
    "spatial": ("image", "text", "clip", "sequence"),
    "temporal": ("sequence", "text", "clip", "image"),
}
_GATING: Final = Gating(gate=("pooled_mlp",), gradient=("gumbel",))
_WORK: Final = Resource(target=(0.6,), resource=("macs",))
# Uses that were chosen; any other family is tried with the first of all that it offers.
CHOSEN: Final[tuple[AbstractFamily, ...]] = (
    LayerSkipping(placement=("all",), gating=_GATING, target=_WORK),
    SlimmableWidth(placement=("all",), shares=((0.25, 0.5, 1.0),), gating=_GATING, target=_WORK),
    MixtureOfExperts(placement=("late",), experts=(4,), gating=_GATING),
    EarlyExit(min_exits=2, max_exits=2, placement="even_macs", heads=("conv",), training=("equal",)),
)
# Sizes at which a block costs several times what a gate does.
SIZES: Final[tuple[AbstractBackbone, ...]] = (
    da.Residual(width=(16,), depth=(2,)),
    da.InvertedResidual(width=(16,), expansion=(2,), depth=(2,)),
    # One chunk, a single call of the cell, is the static network; families that need more get four. At width 64 and
    # eight chunks the calls cost more than all that the cells compute.
    da.Recurrent(width=(256,), cell=("gru",), chunks=(1, 4)),
    da.FrameRecurrent(chunks=(1, 8)),
)
QUICK_SIZES: Final[tuple[AbstractBackbone, ...]] = (
    da.Residual(width=(8,), depth=(2,), stages=2),
    da.InvertedResidual(width=(8,), expansion=(2,), depth=(2,), stages=2),
    da.Recurrent(width=(8,), cell=("gru",), chunks=(1, 4)),
)

Spec = TypeVar("Spec", bound=AbstractSpec)


@final
@dataclass(frozen=True)
class Subject:
    """One family in one use.

    Args:
        space: its backbone, the family, the recipe of the data; one network of it is built.
        source: data.
    """

    space: Space
    source: Source

    @property
    def family(self) -> AbstractFamily:
        """The family."""
        return self.space.families[0]

    def static(self, signature: Signature) -> da.Architecture:
        """The backbone alone."""
        return next(iter(self.space.baselines(signature)))

    def dynamic(self, signature: Signature) -> da.Architecture:
        """The backbone with the family: of all the space has, the first one in which it is."""
        return _uses(self.space, signature)[0]

    def describe(self, signature: Signature) -> str:
        """The dynamic network in words."""
        return describe(self.dynamic(signature))


def _uses(space: Space, signature: Signature) -> list[da.Architecture]:
    name = space.families[0].name
    for _, architecture in space.enumerate(signature):
        if name in architecture.families:
            return [architecture]
    return []


def subjects(
    names: Sequence[str],
    sources: Sequence[Source],
    signatures: Mapping[str, Signature],
    sizes: Sequence[AbstractBackbone],
) -> Iterator[tuple[str, Subject | None]]:
    """For each family its subject; None if none of these data and backbones suits it.

    Args:
        names: of families; empty for all.
        sources: data, the preferred ones of a kind first.
        signatures: name of the data -> inputs and classes, of data that is there.
        sizes: backbones to prefer; of kinds that are not among them the smallest default is taken.
    """
    for kind in FAMILIES:
        if names and kind.name not in names:
            continue
        family = next((member for member in CHOSEN if isinstance(member, kind)), None) or narrowed(kind())
        order = KINDS[kind.wing]
        fit = sorted((s for s in sources if s.name in signatures), key=lambda source: order.index(source.kind))
        made = (_fitting(family, source, signatures[source.name], sizes) for source in fit)
        yield kind.name, next((subject for subject in made if subject is not None), None)


def _fitting(
    family: AbstractFamily, source: Source, signature: Signature, sizes: Sequence[AbstractBackbone]
) -> Subject | None:
    for kind in BACKBONES:
        chosen = next((size for size in sizes if isinstance(size, kind)), None)
        try:
            space = Space((chosen or narrowed(kind()),), (family,), source.recipe)
            if _uses(space, signature):
                return Subject(space, source)
        except DynarchError:  # the backbone does not take these inputs, or not this family
            continue
    return None


def narrowed(spec: Spec) -> Spec:
    """The same ranges with only the first of all options, where a single one is allowed."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        try:
            if isinstance(value, AbstractSpec):
                spec = replace(spec, **{field.name: narrowed(value)})
            elif isinstance(value, tuple) and len(value) > 1 and field.name != "decision":  # policies choose of these
                spec = replace(spec, **{field.name: value[:1]})
        except DynarchError:
            continue
    return spec

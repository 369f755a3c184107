"""Search space: backbones, families and recipes that a search may combine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import permutations, product
from typing import Any, final

import torch

from .architecture import Architecture
from .backbone import AbstractBackbone, Outline, Signature, outline
from .backbones import BACKBONES, backbone_type
from .errors import SpecError
from .families import FAMILIES, family_type
from .family import AbstractFamily
from .network import DynamicNetwork
from .plan import Plan
from .recipe import Recipe, RecipeChoice
from .scope import Replay, Scalar, Scope, enumerate_points
from .spec import AbstractSpec, require, require_name


@final
@dataclass(frozen=True)
class Space(AbstractSpec):
    """What may be built.

    Args:
        backbones: kinds of backbone, each with its ranges; none means all that take the inputs of the task.
        families: dynamic mechanisms, each with its ranges; none gives a search over static networks.
        training: ranges of the recipe.
    """

    backbones: tuple[AbstractBackbone, ...] = ()
    families: tuple[AbstractFamily, ...] = field(default_factory=lambda: tuple(kind() for kind in FAMILIES))
    training: Recipe = field(default_factory=Recipe)

    def check(self) -> None:
        """Nothing twice."""
        for label, members in (("backbones", self.backbones), ("families", self.families)):
            names = [member.name for member in members]
            require(len(set(names)) == len(names), label, f"must be distinct, but got {names}")

    @classmethod
    def from_mapping(cls, mapping: object, path: str = "space") -> Space:
        """Read `{"backbones": {name: ranges}, "families": {name: ranges}, "training": ranges}`."""
        if not isinstance(mapping, Mapping):
            raise SpecError(path, f"must be a table, but got {mapping!r}")
        for name in mapping:
            require_name(f"{path}.{name}", str(name), ("backbones", "families", "training"))
        parts: dict[str, Any] = dict(mapping)
        if "backbones" in parts:
            place = f"{path}.backbones"
            entries = _table(parts["backbones"], place)
            require(len(entries) > 0, place, "must name at least one backbone; leave it out for all that fit the data")
            parts["backbones"] = tuple(
                backbone_type(n, f"{place}.{n}").from_mapping(m, f"{place}.{n}") for n, m in entries
            )
        if "families" in parts:
            place = f"{path}.families"
            entries = _table(parts["families"], place)
            parts["families"] = tuple(
                family_type(n, f"{place}.{n}").from_mapping(m, f"{place}.{n}") for n, m in entries
            )
        if "training" in parts:
            parts["training"] = Recipe.from_mapping(parts["training"], f"{path}.training")
        try:
            return cls(**parts)
        except SpecError as error:
            raise error.under(path) from None

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_mapping`."""
        backbones = {member.name: member.to_mapping() for member in self.backbones}
        return {
            **({"backbones": backbones} if backbones else {}),
            "families": {member.name: member.to_mapping() for member in self.families},
            "training": self.training.to_mapping(),
        }

    def fitted(self, signature: Signature) -> Space:
        """This space for a task: with the backbones that take such inputs, if it names none itself.

        Raises:
            SpecError: if it names a backbone that does not take them.
        """
        kind = signature.kind
        fitting = [each for each in BACKBONES if kind in each.kinds]
        if not self.backbones:
            require(len(fitting) > 0, "backbones", f"no backbone takes inputs of kind {kind!r}")
            return replace(self, backbones=tuple(each() for each in fitting))
        for member in self.backbones:
            known = ", ".join(each.name for each in fitting)
            rule = f"does not take inputs of kind {kind!r} (but these do: {known})"
            require(kind in member.kinds, f"backbones.{member.name}", rule)
        return self

    def sample(self, scope: Scope, signature: Signature) -> Architecture:
        """One architecture, as the scope answers."""
        backbone, choice = self._suggest_backbone(scope, signature)
        shapes = backbone_outline(backbone.name, choice, signature)
        families = self._suggest_families(scope, shapes)
        recipe = self.training.suggest(scope / Recipe.name)
        return _architecture(backbone.name, choice, families, recipe)

    def sample_static(self, scope: Scope, signature: Signature) -> Architecture:
        """A static network: the questions about backbone and recipe, none about families."""
        backbone, choice = self._suggest_backbone(scope, signature)
        return _architecture(backbone.name, choice, {}, self.training.suggest(scope / Recipe.name))

    def _suggest_backbone(self, scope: Scope, signature: Signature) -> tuple[AbstractBackbone, Any]:
        members = self.fitted(signature).backbones
        name = scope.categorical("backbone", tuple(member.name for member in members))
        backbone = next(member for member in members if member.name == name)
        return backbone, backbone.suggest(scope / name)

    def static_params(self, architecture: Architecture, signature: Signature) -> dict[str, Scalar]:
        """The answers to `sample_static` that make this static network.

        Raises:
            SpecError: if the space has no such network.
        """
        for params, made in enumerate_points(lambda scope: self.sample_static(scope, signature)):
            if made == architecture:
                return params
        raise SpecError("space", f"has no static network {architecture.id}")

    def replay(self, params: Mapping[str, Scalar], signature: Signature) -> Architecture:
        """The architecture of stored answers.

        Raises:
            SpecError: if an answer is missing, out of range or not asked for.
        """
        replay = Replay(params)
        architecture = self.sample(Scope(replay), signature)
        for name in params:
            if name not in replay.used:
                raise SpecError(name, "is not asked for by this space; remove it")
        return architecture

    def size(self, signature: Signature) -> int:
        """How many architectures there are, computed, not counted."""
        return sum(self._family_size(shapes) * self.training.size() for _, _, shapes in self.outlines(signature))

    def enumerate(self, signature: Signature) -> Iterator[tuple[dict[str, Scalar], Architecture]]:
        """Every architecture once, with the answers that make it."""
        return enumerate_points(lambda scope: self.sample(scope, signature))

    def outlines(self, signature: Signature) -> Iterator[tuple[AbstractBackbone, Any, Outline]]:
        """Every backbone that the space can build, with its outline."""
        for backbone in self.fitted(signature).backbones:
            for _, choice in enumerate_points(backbone.suggest):
                yield backbone, choice, backbone_outline(backbone.name, choice, signature)

    def baselines(self, signature: Signature) -> Iterator[Architecture]:
        """The smallest and the largest static network of every backbone, with the first recipe."""
        recipe = self.training.suggest(Scope(_First()))
        for backbone in self.fitted(signature).backbones:
            for choice in dict.fromkeys(backbone.extremes()):
                yield _architecture(backbone.name, choice, {}, recipe)

    def decisions(self) -> tuple[str, ...]:
        """Decision schemes that policies may use, in order of first mention."""
        return tuple(dict.fromkeys(name for member in self.families for name in member.decisions()))

    def _suggest_families(self, scope: Scope, shapes: Outline) -> dict[str, AbstractSpec | None]:
        """A choice of each family; of rivals for the blocks, and of those that fork the network, of at most one."""
        chosen = self._rival(scope / "blocks", self.rivals(shapes))
        if not any(member.forks for member in chosen):
            chosen += self._rival(scope / "fork", self.forking(shapes))
        return {
            member.name: member.suggest(scope / member.name, shapes)
            for member in self._ordered()
            if not (member.rewrites_blocks or member.forks) or member in chosen
        }

    @staticmethod
    def _rival(scope: Scope, rivals: tuple[AbstractFamily, ...]) -> tuple[AbstractFamily, ...]:
        """One of the rivals, or none."""
        if not rivals:
            return ()
        # Backbones differ in what fits them, and a name always means the same range.
        names = tuple(member.name for member in rivals)
        name = scope.categorical("_or_".join(names), ("none", *names))
        return tuple(member for member in rivals if member.name == name)

    def rivals(self, shapes: Outline) -> tuple[AbstractFamily, ...]:
        """The families that would put their own steps in the place of this backbone's blocks."""
        return tuple(member for member in self._ordered() if member.rewrites_blocks and member.size(shapes) > 0)

    def forking(self, shapes: Outline) -> tuple[AbstractFamily, ...]:
        """The families that would fork this backbone, and leave its blocks in their places."""
        members = (member for member in self._ordered() if member.forks and not member.rewrites_blocks)
        return tuple(member for member in members if member.size(shapes) > 0)

    def combinations(self, shapes: Outline) -> Iterator[dict[str, AbstractSpec]]:
        """Choices of the families that together hold every part that this backbone can have in this space.

        Each family's parts appear in a network of its own; the segments between decision points of several
        families, in networks with all ways in which these can cut it. After a fork all parts have other shapes, so
        those of each family appear behind each fork as well.
        """
        yield {}
        for member in self.families:
            for made in member.cover(shapes):
                yield {member.name: made}
        if len(self.families) > 1:
            for fork, other in permutations(self.families, 2):
                if fork.forks and _compose((fork, other)):
                    for pair in product(fork.cover(shapes), other.cover(shapes)):
                        yield dict(zip((fork.name, other.name), pair, strict=True))
            options = [[(member, made) for made in (None, *member.cuts(shapes))] for member in self.families]
            for row in product(*options):
                chosen = [(member, made) for member, made in row if made is not None]
                if len(chosen) > 1 and _compose([member for member, _ in chosen]):
                    yield {member.name: made for member, made in chosen}

    def _ordered(self) -> list[AbstractFamily]:
        order = [kind.name for kind in FAMILIES]
        return sorted(self.families, key=lambda member: order.index(member.name))

    def _family_size(self, shapes: Outline) -> int:
        free = (member.size(shapes) for member in self.families if not (member.rewrites_blocks or member.forks))
        forks = 1 + sum(member.size(shapes) for member in self.forking(shapes))
        blocks = sum(member.size(shapes) * (1 if member.forks else forks) for member in self.rivals(shapes))
        return math.prod(free) * (forks + blocks)


@final
class _First:
    """Answers with the first of everything."""

    def suggest_categorical(self, name: str, choices: Any) -> Scalar:
        first: Scalar = choices[0]
        return first

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low


def _compose(members: Sequence[AbstractFamily]) -> bool:
    """Whether one network can have all of them."""
    return sum(each.rewrites_blocks for each in members) <= 1 and sum(each.forks for each in members) <= 1


def _table(value: object, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise SpecError(path, f"must be a table of names, but got {value!r}")
    return [(str(name), options) for name, options in value.items()]


def _architecture(
    name: str, choice: AbstractSpec, families: Mapping[str, AbstractSpec | None], recipe: RecipeChoice
) -> Architecture:
    return Architecture.of(
        backbone={"name": name, **choice.to_mapping()},
        families={key: made.to_mapping() for key, made in families.items() if made is not None},
        training=recipe.to_mapping(),
    )


@lru_cache(maxsize=4096)
def backbone_outline(name: str, choice: AbstractSpec, signature: Signature) -> Outline:
    """The outline of a backbone's choice; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return outline(backbone_type(name).build(choice, signature).eval(), signature)


def build(architecture: Architecture, signature: Signature) -> DynamicNetwork:
    """The network of an architecture, with fresh weights from torch's generator.

    Raises:
        SpecError: if the architecture names what does not exist or does not fit; the path says where.
        ShapeError: if the inputs do not suit the backbone.
    """
    options = architecture.backbone
    kind = backbone_type(str(options.pop("name", "")), "architecture.backbone.name")
    choice = kind.choice_type.from_mapping(options, "architecture.backbone")
    fits = signature.kind in kind.kinds
    require(fits, "architecture.backbone.name", f"{kind.name!r} does not take inputs of kind {signature.kind!r}")
    plan = Plan(kind.build(choice, signature), backbone_outline(kind.name, choice, signature), signature)
    chosen = architecture.families
    for name in chosen:
        family_type(name, f"architecture.families.{name}")
    for family in FAMILIES:
        if family.name in chosen:
            path = f"architecture.families.{family.name}"
            try:
                family.apply(family.choice_type.from_mapping(chosen[family.name]), plan)
            except SpecError as error:
                raise error.under(path) from None
    recipe_of(architecture)
    return plan.lower(architecture)


def recipe_of(architecture: Architecture) -> RecipeChoice:
    """The training recipe of an architecture."""
    return RecipeChoice.from_mapping(architecture.training, "architecture.training")


def describe(architecture: Architecture) -> str:
    """A few words for tables, such as `residual w16 d2-2-2, exits 1,3 linear equal`."""
    options = architecture.backbone
    kind = backbone_type(options.pop("name"))
    words = [kind.describe(kind.choice_type.from_mapping(options))]
    chosen = architecture.families
    words += [
        kind.describe(kind.choice_type.from_mapping(chosen[kind.name])) for kind in FAMILIES if kind.name in chosen
    ]
    return ", ".join(words)

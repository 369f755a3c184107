"""Inventory: which parts a network, or a whole space, can ask the latency table for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces.architecture import Architecture
from ..spaces.backbone import Signature
from ..spaces.errors import SpecError
from ..spaces.families import FAMILIES
from ..spaces.network import DynamicNetwork
from ..spaces.plan import Plan
from ..spaces.space import Space, build
from ..spaces.trace import COMPACT, Part, PartInfo
from .device import one_thread
from .keys import PartKey, concatenate, part_key


@final
@dataclass(frozen=True)
class Costs:
    """What is known of a network's parts before any stopwatch.

    Args:
        parts: `p` parts in execution order.
        keys: their keys in the latency table.
        macs: multiply-accumulates of each for one input.
        parameters: weights of the whole network.
        kind: of its backbone.
    """

    parts: tuple[PartInfo, ...]
    keys: tuple[str, ...]
    macs: tuple[int, ...]
    parameters: int
    kind: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [asdict(part) for part in self.parts]
        return {
            "parts": rows,
            "keys": list(self.keys),
            "macs": list(self.macs),
            "parameters": self.parameters,
            "kind": self.kind,
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Costs:
        """The inverse of `to_mapping`.

        Raises:
            SpecError: if the mapping is no such thing.
        """
        try:
            parts = tuple(PartInfo(**row) for row in mapping["parts"])
            macs = tuple(int(value) for value in mapping["macs"])
            keys, kind = tuple(map(str, mapping["keys"])), str(mapping.get("kind", ""))
            return cls(parts, keys, macs, int(mapping["parameters"]), kind)
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError("costs", f"must be what to_mapping gives, but reading it failed: {error!r}") from None


# A block's output is kept beside its key for the next block, and so is the block itself: one that was freed
# could lend its identity, which names it here, to another.
KeyCache = dict[Hashable, tuple[PartKey, object, object]]


def keys_of(parts: tuple[Part, ...], cache: KeyCache | None = None) -> tuple[PartKey, ...]:
    """The keys of parts; what several networks share is looked at once if they share a cache."""
    known: KeyCache = {} if cache is None else cache
    return tuple(_key(part, known) for part in parts)


def costs_of(network: DynamicNetwork) -> Costs:
    """Parts, keys and work of a network (in evaluation mode, on any device)."""
    parts = network.parts()
    return _costs(network, parts, keys_of(parts))


def _costs(network: DynamicNetwork, parts: tuple[Part, ...], keys: tuple[PartKey, ...]) -> Costs:
    return Costs(
        tuple(part.info for part in parts),
        tuple(key.hash for key in keys),
        tuple(key.macs for key in keys),
        sum(weight.numel() for weight in network.parameters()),
        str(network.architecture.backbone.get("name", "")),
    )


@torch.no_grad()
def _key(part: Part, cache: KeyCache) -> PartKey:
    if not isinstance(part.call, nn.Sequential):
        return _recorded(part.call, part.inputs, part.info.kind, part.token, cache)[0]
    keys, x = [], part.inputs[0]
    for child in part.call:
        key, x = _recorded(child, (x,), "block", (id(child), tuple(x.shape)), cache)
        keys.append(key)
    place = (part.info.kind, tuple(key.hash for key in keys))
    if place not in cache:
        cache[place] = (concatenate(keys, part.info.kind), None, None)
    return cache[place][0]


def _recorded(
    call: Callable[..., Any], inputs: tuple[Tensor, ...], kind: str, token: Hashable, cache: KeyCache
) -> tuple[PartKey, Any]:
    if token is None:
        return part_key(call, inputs, kind=kind), None
    # What is cut out of larger features, as tiles at their border are, lies otherwise in memory, which is in the key.
    name = (token, tuple(x.stride() for x in inputs))
    if name not in cache:
        made = call(*inputs) if kind == "block" else None
        cache[name] = (part_key(call, inputs, kind=kind), made, call)
    return cache[name][:2]


def batched(inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """Example inputs `1 x ...` repeated to `batch x ...`."""
    return tuple(x.repeat(batch, *[1] * (x.dim() - 1)) for x in inputs)


def networks_of(
    space: Space, signature: Signature, *, only: Collection[int] | None = None
) -> Iterator[tuple[DynamicNetwork, KeyCache]]:
    """Networks that together hold every part that the space can produce, the static ones included.

    They share a key cache, and always come in the same order.

    Args:
        space: what may be built.
        signature: inputs and classes.
        only: numbers of those to build; the others are left out at no cost.
    """
    numbers = count()
    cache: KeyCache = {}
    recipe = next(iter(space.baselines(signature))).training
    members = {member.name: member for member in space.families}
    order = [kind.name for kind in FAMILIES]
    for backbone, choice, shapes in space.outlines(signature):
        built = None
        for chosen in space.combinations(shapes):
            if only is not None and next(numbers) not in only:
                continue
            built = backbone.build(choice, signature).eval() if built is None else built
            plan = Plan(built, shapes, signature)
            for name in sorted(chosen, key=order.index):
                members[name].apply(chosen[name], plan)
            architecture = Architecture.of(
                backbone={"name": backbone.name, **choice.to_mapping()},
                families={name: made.to_mapping() for name, made in chosen.items()},
                training=recipe,
            )
            yield plan.lower(architecture).eval(), cache


Place = tuple[int, int]


@final
@dataclass(frozen=True)
class Inventory:
    """Everything that a space can ask of a latency table.

    Args:
        parts: key -> the part, once each.
        costs: of networks that together hold all these parts.
        places: key -> the number of the network, and of the part in it, where it was found first.
    """

    parts: Mapping[str, tuple[PartKey, Part]]
    costs: tuple[Costs, ...]
    places: Mapping[str, Place]


def inventory(
    space: Space, signature: Signature, *, compaction: bool, on_progress: Callable[[int], None] | None = None
) -> Inventory:
    """Every part that routed mode of any member of the space can run.

    Args:
        space: what may be built.
        signature: inputs and classes.
        compaction: whether batches are larger than 1; one input is never compacted, it leaves or goes on.
        on_progress: called with the number of parts found so far.
    """
    with torch.random.fork_rng(devices=[]), one_thread():
        return _listed(networks_of(space, signature), compaction=compaction, on_progress=on_progress)


def inventory_of(architectures: Iterable[Architecture], signature: Signature, *, compaction: bool) -> Inventory:
    """Every part that routed mode of these networks can run."""
    with torch.random.fork_rng(devices=[]), one_thread():
        networks = ((build(each, signature).eval(), KeyCache()) for each in architectures)
        return _listed(networks, compaction=compaction)


def _listed(
    networks: Iterable[tuple[DynamicNetwork, KeyCache]],
    *,
    compaction: bool,
    on_progress: Callable[[int], None] | None = None,
) -> Inventory:
    found: dict[str, tuple[PartKey, Part]] = {}
    costs: list[Costs] = []
    places: dict[str, Place] = {}
    for network, cache in networks:
        parts = network.parts()
        keys = keys_of(parts, cache)
        for index, (part, key) in enumerate(zip(parts, keys, strict=True)):
            if part.info.kind != COMPACT or compaction:
                known = found.get(key.hash)
                if known is None or known[1].info.rows < part.info.rows:  # it must be measured for all of them
                    found[key.hash] = (key, part)
                    places[key.hash] = (len(costs), index)
        costs.append(_costs(network, parts, keys))
        if on_progress is not None:
            on_progress(len(found))
    return Inventory(found, tuple(costs), places)


def parts_at(space: Space, signature: Signature, places: Mapping[str, Place]) -> dict[str, tuple[PartKey, Part]]:
    """The parts at places that an inventory of the same space named; only the networks that have them are built.

    Raises:
        SpecError: if another part or none stands at one.
    """
    wanted: dict[int, dict[str, int]] = {}
    for name, (number, index) in places.items():
        wanted.setdefault(number, {})[name] = index
    found: dict[str, tuple[PartKey, Part]] = {}
    with torch.random.fork_rng(devices=[]), one_thread():
        networks = networks_of(space, signature, only=wanted)
        for number, (network, cache) in zip(sorted(wanted), networks, strict=False):
            parts = network.parts()
            for name, index in wanted[number].items():
                (key,) = keys_of((parts[index],), cache)
                if key.hash != name:
                    raise SpecError(
                        "space", f"must have part {name} at its place, but has {key.hash}; profile it again"
                    )
                found[name] = (key, parts[index])
    if len(found) < len(places):
        raise SpecError("space", f"must have {len(places)} parts, but only {len(found)} were found; profile it again")
    return found

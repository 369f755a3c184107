"""Ways: the calls by which a whole network is calibrated, as unlike each other as those of its use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..spaces.network import DynamicNetwork
from ..spaces.policy import Policy
from ..spaces.signature import Signature, random_inputs

INPUTS: Final = 8
LEVELS: Final = 5  # of each knob that names no few ways
DECIDED: Final = 6  # ways that gates give, at most
MOST: Final = 18  # ways of a network in all
_NEVER_REACHED: Final = 1e30  # scores of all decision schemes are far below

Item = TypeVar("Item")
Setting = Mapping[str, float]
Decided = tuple[Tensor, Setting]  # inputs of one call, and the knobs


@final
@dataclass(frozen=True, eq=False)
class Way:
    """A call of a network, and how it goes.

    Args:
        policy: when to leave, and the knobs of gates.
        x: its inputs (`b x ...`).
        exit_taken: where each of them leaves (`b`).
    """

    policy: Policy
    x: Tensor
    exit_taken: NDArray[np.int64]


def paths(network: DynamicNetwork, *, batch: int = 1) -> tuple[tuple[Policy, int], ...]:
    """Ways through a network that do not depend on the input, each with the exit where it ends.

    Each exit used alone, the final head, and, for one input at a time, all exits tried in vain. A batch out of which
    nobody leaves is not compacted, which only the network itself can tell. All of these at every level of a knob that
    has such.
    """
    exits = network.exits
    found = [(Policy.single(exits, exit_index), exit_index) for exit_index in range(exits + 1)]
    if exits and batch == 1:
        scheme = network.exit_steps[0].decisions[0].name
        found.append((Policy(scheme, (_NEVER_REACHED,) * exits), exits))
    settings = product(*([(knob, level) for level in levels] for knob, levels in network.levels.items()))
    return tuple((replace(policy, setting=setting), end) for setting in settings for policy, end in found)


@torch.no_grad()
def ways_of(network: DynamicNetwork, *, batch: int, seed: int = 0) -> tuple[Way, ...]:
    """Ways in the order of `paths`, each under several decisions of the gates; of batches that may leave at exits, one
    more, on which half of those who reach an exit leave there.

    Gates that always go the same way find their branches predicted and what they choose in the caches, as they do not
    in use: by a fifth, routed networks would be promised to be too fast.

    Args:
        network: in evaluation mode.
        batch: inputs in a call.
        seed: of the inputs.
    """
    decided = _decided(network, batch, seed)
    found = [
        Way(replace(policy, setting=tuple(sorted({**setting, **dict(policy.setting)}.items()))), x, _all(x, end))
        for policy, end in paths(network, batch=batch)
        for x, setting in decided
    ]
    if network.exits and batch > 1:
        found.append(halving(network, decided[0][0]))
    return spread(found, MOST)


@torch.no_grad()
def halving(network: DynamicNetwork, x: Tensor) -> Way:
    """Thresholds at the medians of the scores, so that the batch `b x ...` is compacted at every exit."""
    step = network.exit_steps[0]
    scheme, logits = step.decisions[0], network(x)
    taken, thresholds = np.full(len(x), network.exits), []
    state = None
    for index, each in enumerate(network.exit_steps):
        score, state = scheme.score(logits[index], state, each.learned_of(scheme.name))
        inside = taken == network.exits
        reached = score.double().numpy()[inside]
        thresholds.append(float(np.median(reached)) if len(reached) else 0.0)
        taken[inside] = np.where(reached > thresholds[-1], index, network.exits)
    return Way(Policy(scheme.name, tuple(thresholds)), x, taken)


def _decided(network: DynamicNetwork, batch: int, seed: int) -> tuple[Decided, ...]:
    """Calls whose gates decide differently, from those that run least to those that run most; one without gates."""
    generator = torch.Generator().manual_seed(seed)
    some = _unlike(network.signature, max(INPUTS, batch), generator)
    if batch == 1:
        some = torch.cat([network.parts()[0].inputs[0], some[1:]])
    calls = torch.split(some, batch)
    found: dict[bytes, Decided] = {}
    for setting in _settings(network, some):
        usage = network.simulate(some, setting=setting).usage
        if not usage:
            break
        ran = torch.stack([usage[name].double() for name in sorted(usage)], dim=1)  # inputs x parts
        for x, each in zip(calls, torch.split(ran, batch), strict=True):
            found.setdefault(each.numpy().tobytes(), (x, setting))
    by_work = sorted(found.items(), key=lambda item: float(np.frombuffer(item[0]).sum()))
    return spread([decided for _, decided in by_work], DECIDED) or ((calls[0], {}),)


def _unlike(signature: Signature, count: int, generator: torch.Generator) -> Tensor:
    """Random inputs `count x ...`, some pale and some bright, as gates that know nothing yet see no more than that."""
    x = random_inputs(signature, count, generator)
    if signature.kind == "text":
        return x
    first = 1 if signature.kind == "sequence" else 0  # that channel says where a sequence ends
    part = x[..., first:]
    size = (count, *[1] * (part.dim() - 1))
    scale = 4 ** (2 * torch.rand(size, generator=generator) - 1)
    shift = torch.randn(size, generator=generator)
    present = x[..., :1] if first else torch.ones(size)
    x[..., first:] = (part * scale + shift) * present
    return x


def _settings(network: DynamicNetwork, x: Tensor) -> list[Setting]:
    """Of each knob values at which shares of all decisions, from few to nearly all, fall for the dearer side."""
    rows = []
    for knob, gaps in network.simulate(x).margins.items():
        if knob not in network.levels:
            margins = torch.cat([each.flatten() for each in gaps]).double().numpy()
            quantiles = np.quantile(margins, np.linspace(0.05, 0.95, LEVELS))
            rows.append([(knob, 0.0), *((knob, round(float(-each), 5)) for each in quantiles)])
    return [{knob: value for knob, value in row if value} for row in product(*rows)]


def _all(x: Tensor, end: int) -> NDArray[np.int64]:
    return np.full(len(x), end)


def spread(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most so many, evenly spread from the first to the last."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int).tolist())

"""Resource: what training charges a dynamic network for, and how much of it the network may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from .backbone import Outline
from .errors import SpecError
from .ranges import AbstractRanges
from .scope import Scope
from .spec import AbstractSpec, require, require_name, require_options, require_range

RESOURCES = ("rate", "macs", "latency")
SCOPES = ("global", "layer")


@final
@dataclass(frozen=True)
class ResourceChoice(AbstractSpec):
    """One target.

    Args:
        target: share of the cost of all dearest branches that may be spent on average.
        resource: what cost means: `rate` counts open branches, `macs` their work, `latency` their milliseconds in
            the latency table of the first device.
        scope: whether the target holds for the network as a whole (`global`) or for every `layer`.
        weight: factor of the loss.
    """

    target: float
    resource: str
    scope: str
    weight: float

    def check(self) -> None:
        """Known names, sane numbers."""
        require(0 < self.target <= 1, "target", f"must be in (0, 1], but got {self.target}")
        require_name("resource", self.resource, RESOURCES)
        require_name("scope", self.scope, SCOPES)
        require_range("weight", self.weight, 0, 1000)

    def describe(self) -> str:
        """Such as `0.6 latency`."""
        return f"{self.target:g} {self.resource}" + ("/layer" if self.scope == "layer" else "")


@final
@dataclass(frozen=True)
class Resource(AbstractRanges):
    """The ranges in which a search may vary what training charges for.

    Args:
        target: shares of the cost to choose from.
        resource: meanings of cost to choose from.
        scope: scopes of the target to choose from.
        weight: factor of the loss.

    Source: Veit, Belongie, "Convolutional Networks with Adaptive Inference Graphs", ECCV 2018 (targets a layer); Han et
        al., "Latency-aware Unified Dynamic Networks", TPAMI 2024 (a target for the network, weight 10).
    """

    target: tuple[float, ...] = (0.4, 0.6, 0.8)
    resource: tuple[str, ...] = ("latency",)
    scope: tuple[str, ...] = ("global",)
    weight: float = 10.0

    def check(self) -> None:
        """Known, distinct options."""
        require_options("target", self.target)
        for index, value in enumerate(self.target):
            require(0 < value <= 1, f"target.{index}", f"must be in (0, 1], but got {value}")
        require_options("resource", self.resource, RESOURCES)
        require_options("scope", self.scope, SCOPES)
        require_range("weight", self.weight, 0, 1000)

    def suggest(self, scope: Scope, outline: Outline) -> ResourceChoice:
        """Target, resource, scope."""
        return ResourceChoice(
            scope.categorical("target", self.target),
            scope.categorical("resource", self.resource),
            scope.categorical("scope", self.scope),
            self.weight,
        )

    def size(self, outline: Outline) -> int:
        """How many choices `suggest` can make."""
        return len(self.target) * len(self.resource) * len(self.scope)

    def listed(self) -> tuple[ResourceChoice, ...]:
        """One choice: none of them changes what runs."""
        return (ResourceChoice(self.target[0], self.resource[0], self.scope[0], self.weight),)

    def cover(self, outline: Outline) -> tuple[ResourceChoice, ...]:
        """The same."""
        return self.listed()


@final
@dataclass(frozen=True)
class ResourceTarget:
    """What a network is charged for in training.

    Args:
        branches: for each choice the parts that compute, by rising work. A name that begins with `@` stands for all
            parts under that variant of a fork.
        choice: the target.
        rows: of each part that takes rows, how many an input may bring; costs are then those of one row.
    """

    branches: tuple[tuple[str, ...], ...]
    choice: ResourceChoice
    rows: Mapping[str, int] = field(default_factory=dict)

    def prices(self, costs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """What each branch costs an input, with all of its rows.

        Args:
            costs: resource -> part -> cost; `rate` needs none.

        Raises:
            SpecError: if the cost of a part is not known.
        """
        names = [name for group in self.branches for name in group]
        if self.choice.resource == "rate":
            return dict.fromkeys(names, 1.0)  # of rows as well: a share of them is a rate
        known = costs.get(self.choice.resource, {})
        found = {name: _costs(name, known) for name in names}
        missing = [name for name, each in found.items() if not each]
        if missing:
            raise SpecError("resource", f"{self.choice.resource} needs the cost of {', '.join(missing)}")
        # A variant costs what its parts do together, a part that runs under any variant what it does on average.
        return {
            name: sum(each) * self.rows.get(name, 1) / (1 if name.startswith("@") else len(each))
            for name, each in found.items()
        }

    def spent(self, usage: Mapping[str, Tensor], prices: Mapping[str, float]) -> Tensor:
        """Share of the dearest branches' cost that was spent, for each input and choice: `b x choices`."""
        shares = []
        for group in self.branches:
            dearest = max(prices[name] for name in group)
            paid = torch.stack([usage[name] / self.rows.get(name, 1) * (prices[name] / dearest) for name in group])
            shares.append(paid.sum(0))
        return torch.stack(shares, 1)

    def weights(self, prices: Mapping[str, float]) -> list[float]:
        """Share of each choice in the cost of all; they add up to 1."""
        dearest = [max(prices[name] for name in group) for group in self.branches]
        return [cost / sum(dearest) for cost in dearest]

    def loss(self, usage: Mapping[str, Tensor], prices: Mapping[str, float]) -> Tensor:
        """Squared distance of what a batch spends from the target, times its weight; a scalar."""
        spent = self.spent(usage, prices).mean(0)  # one a choice
        weights = spent.new_tensor(self.weights(prices))
        if self.choice.scope == "layer":
            distance = ((spent - self.choice.target) ** 2 * weights).sum()
        else:
            distance = ((spent * weights).sum() - self.choice.target) ** 2
        return self.choice.weight * distance


_FREE = ("decide.", "compact.", "move.", "move@")  # what is done for a decision, not for an answer


def _costs(name: str, known: Mapping[str, float]) -> list[float]:
    """Of the part of that name, or of all parts that the name stands for."""
    if name in known:
        return [known[name]]
    if name.startswith("@"):
        return [cost for part, cost in known.items() if part.endswith(name) and not part.startswith(_FREE)]
    return [cost for part, cost in known.items() if part.startswith(f"{name}@")]

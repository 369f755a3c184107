"""Trace: for each input, which parts of a network ran, and how often.

A network is a chain of *parts*: segments between decision points, exit heads, decisions, compactions.
The same list of parts is what routed mode runs, what the latency table measures and what a trace
counts, so a promise about latency is made of the very pieces that keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .policy import Policy

COMPACT = "compact"


@final
@dataclass(frozen=True)
class PartInfo:
    """Name and conditions of a part.

    Args:
        name: unique in its network, such as `segment.1`, `exit.0`, `decide.0.entropy`.
        kind: `segment`, `exit`, `decide`, `compact`, or what other families add.
        depth: how many early exits lie before it; an input reaches it unless it left at one of these.
        exit: the exit it belongs to: it runs only if the policy tries that exit.
        decision: it runs only under this decision scheme.
        choice: the step that chooses between it and others; of the parts of one choice an input runs at most `at_most`.
        at_most: the same for all parts of a choice.
        variant: of a fork, under which alone it runs.
        rows: how many rows, such as tiles or tokens, an input may bring to one call of it; how often an input runs
            such a part is the number of its rows, and those of a whole batch go through it in one call.
    """

    name: str
    kind: str
    depth: int
    exit: int | None = None
    decision: str | None = None
    choice: str | None = None
    at_most: int = 1
    variant: str | None = None
    rows: int = 1

    def active(self, policy: Policy) -> bool:
        """Whether inputs that reach the part run it under this policy."""
        if self.exit is None:
            return True
        threshold = policy.thresholds[self.exit]
        if threshold is None:
            return False
        if self.decision is not None and self.decision != policy.decision:
            return False
        # An exit where everybody leaves needs no decision, and leaves nobody behind to compact.
        return threshold != -np.inf or self.kind == "exit"


@final
@dataclass(frozen=True)
class Part:
    """A part that can be run and measured on its own.

    Args:
        info: name and conditions.
        call: exactly what routed mode executes.
        inputs: example inputs at batch 1, each `1 x ...`; one row of a part that takes rows.
        token: equal tokens promise equal work, so that many networks need looking at only once; None: no promise.
    """

    info: PartInfo
    call: Callable[..., object] = field(compare=False)
    inputs: tuple[Tensor, ...] = field(compare=False)
    token: Hashable = None


def counts(
    parts: tuple[PartInfo, ...],
    policy: Policy,
    exit_taken: NDArray[np.int64],
    usage: Mapping[str, NDArray[np.floating[Any]]] | None = None,
) -> NDArray[np.float64]:
    """How often each input runs each part.

    Args:
        parts: `p` parts in execution order.
        policy: the operating policy.
        exit_taken: `n` numbers of the exit each input left at; the final head is `len(policy.thresholds)`.
        usage: part -> `n`, how often an input that got there ran it; parts without an entry run once, for all rows.

    Returns:
        `n x p`.
    """
    result = np.zeros((len(exit_taken), len(parts)))
    for column, part in enumerate(parts):
        if part.active(policy):
            # At an exit compaction moves only the inputs that stay.
            leaving = part.kind == COMPACT and part.exit is not None
            reaches = exit_taken > part.depth if leaving else exit_taken >= part.depth
            result[:, column] = reaches * (usage or {}).get(part.name, float(part.rows))
    return result


def present(parts: tuple[PartInfo, ...], exit_taken: NDArray[np.int64]) -> NDArray[np.float64]:
    """Who is there when rows may be moved: `n x p`; 0 for parts that move nothing.

    Rows are gathered only where some of those who are there move and some do not.
    """
    there = [exit_taken >= part.depth if part.kind == COMPACT else np.zeros(len(exit_taken)) for part in parts]
    return np.stack(there, axis=1).astype(np.float64)


def within(name: str, variant: str | None) -> str:
    """The name of a part under a variant of a fork."""
    return name if variant is None else f"{name}@{variant}"


def variant_usage(parts: tuple[PartInfo, ...]) -> dict[str | None, dict[str, NDArray[np.float64]]]:
    """Variant -> usage of one input that runs under it: of the parts of other variants none; None: there is no fork."""
    forked = dict.fromkeys(part.variant for part in parts if part.variant is not None)
    variants: tuple[str | None, ...] = tuple(forked) or (None,)
    return {
        variant: {part.name: np.zeros(1) for part in parts if part.variant not in (None, variant)}
        for variant in variants
    }


def usage_row(parts: tuple[PartInfo, ...], usage: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """How often one input that gets everywhere runs each of `p` parts."""
    return np.array([float(usage[part.name][0]) if part.name in usage else float(part.rows) for part in parts])


def dearest_usage(parts: tuple[PartInfo, ...], weight: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Usage of one input that runs the dearest parts of every choice, as many as it may, under the variant where that
    costs most.

    Args:
        parts: `p` parts.
        weight: `p`, what each costs; of parts that take rows, one row.
    """
    options: dict[str, list[int]] = {}
    for column, part in enumerate(parts):
        if part.choice is not None:
            options.setdefault(part.choice, []).append(column)
    chosen: dict[str, NDArray[np.float64]] = {}
    for columns in options.values():
        dearest = sorted(columns, key=lambda column: -weight[column] * parts[column].rows)
        taken = dearest[: parts[columns[0]].at_most]
        chosen |= {parts[column].name: np.full(1, float(parts[column].rows * (column in taken))) for column in columns}
    ways = [chosen | usage for usage in variant_usage(parts).values()]
    return max(ways, key=lambda usage: float(weight @ usage_row(parts, usage)))


@final
class Recorder:
    """Collects a trace while routed mode runs.

    Args:
        size: number of inputs that will be routed in one call.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._counts: dict[str, NDArray[np.float64]] = {}
        self.shown: dict[str, Tensor] = {}  # what steps tell of their decisions, one row for each input still there

    def add(self, name: str, alive: Tensor | None, times: Tensor | None = None) -> None:
        """Part `name` runs now for the inputs with these numbers (None: all); `times`: how many rows each brings."""
        row = self._counts.setdefault(name, np.zeros(self.size))
        row[slice(None) if alive is None else alive.cpu().numpy()] += 1 if times is None else times.cpu().numpy()

    def counts(self, parts: tuple[PartInfo, ...]) -> NDArray[np.float64]:
        """`n x p` counts in the order of `parts`."""
        empty = np.zeros(self.size)
        return np.stack([self._counts.get(part.name, empty) for part in parts], axis=1)

    def totals(self) -> Mapping[str, float]:
        """How many inputs ran each part."""
        return {name: float(row.sum()) for name, row in self._counts.items()}

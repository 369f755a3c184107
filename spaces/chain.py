"""Chain: running steps one after the other, through the chains that forks hold as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .exit_step import ExitStep
from .exports import Exports, Op
from .step import AbstractStep, Routing, Simulation
from .trace import Part, PartInfo, within


def simulate(steps: Sequence[AbstractStep], run: Simulation) -> None:
    """Everything for everybody."""
    for step in steps:
        step.simulate(run)


def route(steps: Sequence[AbstractStep], run: Routing) -> None:
    """What is asked for, until everybody has left."""
    for step in steps:
        step.route(run)
        if run.done:
            return


def parts(steps: Sequence[AbstractStep], run: Simulation) -> Iterator[Part]:
    """All parts in execution order, for what an example simulation brings to each step (batch 1)."""
    for index, step in enumerate(steps):
        yield from step.parts(run)
        if index + 1 < len(steps):
            step.simulate(run)


def export(steps: Sequence[AbstractStep], run: Simulation, exports: Exports) -> list[Op]:
    """What a runner does in place of the chain, up to where everybody has left."""
    made: list[Op] = []
    for step in steps:
        made += step.export(run, exports)
        if made and made[-1]["op"] in ("answer", "fork"):
            break
        step.simulate(run)
    return made


def names(steps: Sequence[AbstractStep]) -> tuple[str, ...]:
    """The names of all parts."""
    return tuple(name for step in steps for name in step.names())


def number(steps: Sequence[AbstractStep], depth: int = 0) -> int:
    """Tell every step how many exits lie before it; the number of exits on a way through the chain."""
    for step in steps:
        step.depth = depth
        depth += isinstance(step, ExitStep)
        ends = [number(chain, depth) for _, chain in step.chains()]
        depth = ends[0] if ends else depth
    return depth


def walk(steps: Sequence[AbstractStep], variant: str | None = None) -> Iterator[tuple[str | None, AbstractStep]]:
    """Every step, with the variant that it runs under; those within forks as well."""
    for step in steps:
        yield variant, step
        for name, chain in step.chains():
            yield from walk(chain, name)


def path(steps: Sequence[AbstractStep]) -> Iterator[AbstractStep]:
    """The steps of one way through the network: under the dearest variant of a fork."""
    for step in steps:
        yield step
        for _, chain in step.chains()[-1:]:
            yield from path(chain)


def under(info: PartInfo, variant: str) -> PartInfo:
    """The same part under a variant."""
    choice = None if info.choice is None else within(info.choice, variant)
    return replace(info, name=within(info.name, variant), choice=choice, variant=variant)

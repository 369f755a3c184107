"""Fork step: from here on the features have another shape, and the rest of the network runs under one of several
variants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from . import chain
from .choice_step import Move
from .decider import Decider
from .errors import SpecError
from .exports import Exports, Op
from .gate import GateUnit
from .gradient import AbstractGradient, one_hot, uniform
from .runnable import Picking, gate_op
from .step import AbstractStep, Routing, Simulation
from .trace import COMPACT, Part, PartInfo, within
from .twins import twin

GATE, ENTER, MOVE = "fork", "enter", "move"


@final
@dataclass(frozen=True)
class Variant:
    """One way to go on.

    Args:
        name: stands behind the `@` in the names of its parts.
        module: what the features go through first, `b x ...` -> `b x ...`; None hands them on as they are.
        work: share of the work of the dearest variant, for the knob.
        token: equal tokens promise that the module does equal work on equal features.
        prepare: called with every module of the rest as it runs under this variant, to set what differs there. Those
            of the dearest variant are shared with others: it has nothing to set.
    """

    name: str
    module: nn.Module | None
    work: float
    token: Hashable = None
    prepare: Callable[[nn.Module], None] | None = None


@final
class ForkStep(AbstractStep):
    """Picks a variant, then runs the rest of the network under it; the last step of its chain.

    With a gate each input picks for itself: the variant with the largest logit, to which the knob `s` adds
    `s * work`. Without one the knob alone picks, for all inputs alike: it stands at one of its `levels`, 0 being the
    dearest variant, -1 the one before it. In training each input then takes a variant at random, or, where variants
    are not `drawn`, the dearest.

    The variants share all weights but those of batch normalisation. Exits within the rest work as ever. The names of
    parts that run under a variant end in `@` and its name.

    Args:
        variants: at least two, by rising work, that of the last being 1.
        gate: who decides; None: the knob does.
        knob: name of the knob.
        gradient: how training passes through the decision of a gate.
        explore: share of the inputs that take a variant at random when training begins.
        drawn: whether training draws variants where no gate decides.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        *,
        gate: GateUnit | None,
        knob: str,
        gradient: AbstractGradient | None = None,
        explore: float = 0.0,
        drawn: bool = True,
    ) -> None:
        super().__init__()
        self.drawn = drawn or gate is not None
        self.prepares = tuple(each.prepare for each in variants)
        self.knob = knob
        self.variants = tuple(each.name for each in variants)
        self.tokens = tuple(each.token for each in variants)
        self.idle = tuple(each.module is None for each in variants)
        self.enters = nn.ModuleList(nn.Identity() if each.module is None else each.module for each in variants)
        self.rest = nn.ModuleList()
        self.decider: Decider | None = None
        if gate is None:
            self.levels = tuple(float(j + 1 - len(variants)) for j in range(len(variants)))
        else:
            assert gradient is not None
            works = tuple(each.work for each in variants)
            self.decider = Decider(gate, works, gradient=gradient, knob=knob, place=0.0, explore=explore)

    def grow(self, rest: Sequence[AbstractStep]) -> None:
        """Take what follows: the dearest variant as it is, the others as its twins."""
        whole = nn.ModuleList(rest)
        self.rest = nn.ModuleList([*(twin(whole) for _ in self.variants[:-1]), whole])
        for prepare, chained in zip(self.prepares, self.rest, strict=True):
            if prepare is not None:
                for module in chained.modules():
                    prepare(module)

    def chains(self) -> tuple[tuple[str, Sequence[AbstractStep]], ...]:
        """What runs under each variant."""
        return tuple(zip(self.variants, self.rest, strict=True))  # type: ignore[arg-type]

    def names(self) -> tuple[str, ...]:
        """The gate, and under each variant what is done to the features, the rest, and the moving of rows."""
        gate = () if self.decider is None else (GATE,)
        return gate + tuple(name for j in range(len(self.variants)) for name in self._names(j))

    def _names(self, j: int) -> tuple[str, ...]:
        own = (() if self.idle[j] else (ENTER,)) + (() if self.decider is None else (MOVE,))
        return tuple(within(name, self.variants[j]) for name in (*own, *chain.names(self.chains()[j][1])))

    def parts(self, run: Simulation) -> tuple[Part, ...]:
        """All that `names` says."""
        features, parts = run.features, list[Part]()
        shape = tuple(features.shape[1:])
        if self.decider is not None:
            info = PartInfo(GATE, "gate", self.depth)
            parts.append(Part(info, self.decider.gating, (features,), self.decider.part_token(shape)))
        for j, (variant, rest) in enumerate(self.chains()):
            if not self.idle[j]:
                call = self.enters[j]
                assert isinstance(call, nn.Module)
                info = PartInfo(within(ENTER, variant), "enter", self.depth, variant=variant)
                token = None if self.tokens[j] is None else ("enter", self.tokens[j], shape)
                parts.append(Part(info, call, (features,), token))
            sub = self._enter(run, j)
            parts += [replace(part, info=chain.under(part.info, variant)) for part in chain.parts(rest, sub)]
            if self.decider is not None:
                chain.simulate(rest[-1:], sub)
                info = PartInfo(within(MOVE, variant), COMPACT, self.depth, variant=variant)
                made = sub.logits[-1]
                parts.append(Part(info, Move(), (features, made), (COMPACT, "move", shape, tuple(made.shape[1:]))))
        return tuple(parts)

    def watched(self) -> Mapping[str, nn.Module]:
        """The gate, and what is done to the features."""
        gate = {} if self.decider is None else {GATE: self.decider.gate}
        ways = zip(self.variants, self.enters, self.idle, strict=True)
        return gate | {within(ENTER, variant): each for variant, each, idle in ways if not idle}

    def simulate(self, run: Simulation) -> None:
        """Run the rest under every variant for everybody, and keep of each input the answers of the one picked."""
        weights = self._weights(run)
        mixed: list[Tensor] | None = None
        scores: dict[str, list[Tensor]] = {}
        for j, (_, rest) in enumerate(self.chains()):
            share, sub = weights[:, j], self._enter(run, j)
            if (self.drawn and run.progress is not None) or bool(share.any()):
                chain.simulate(rest, sub)
                mixed = _added(mixed, [logits * share[:, None] for logits in sub.logits])
                for scheme, each in sub.scores.items():
                    scores[scheme] = _added(scores.get(scheme), [score * share.detach() for score in each])
            self._join(run, sub, j, share)
        assert mixed is not None
        run.logits.extend(mixed)
        for scheme, told in scores.items():
            run.scores.setdefault(scheme, []).extend(told)

    def _enter(self, run: Simulation, j: int) -> Simulation:
        """What flows under a variant; the answers given so far stay outside."""
        features = self.enters[j](run.features)
        return Simulation(
            features,
            run.setting,
            run.progress,
            run.generator,
            run.shuffle,
            memory=dict(run.memory),
            variant=self.variants[j],
        )

    def _join(self, run: Simulation, sub: Simulation, j: int, share: Tensor) -> None:
        """Bring outside what a variant says of its parts, as often as inputs run it."""
        variant, hard = self.variants[j], share.detach()
        for name in self._names(j):
            used = sub.usage.get(name.removesuffix(within("", variant)))
            run.usage[name] = share if used is None else share * used
        for knob, gaps in sub.margins.items():
            run.margins.setdefault(knob, []).extend(gaps)
        run.log_probs.extend(hard * each for each in sub.log_probs)
        run.penalties.extend(hard.mean() * each for each in sub.penalties)
        if run.progress is not None:  # training charges a part for all variants together, and a variant as a whole
            run.usage[within("", variant)] = share
            for name, used in sub.usage.items():
                run.usage[name] = run.usage.get(name, 0.0) + share * used

    def _weights(self, run: Simulation) -> Tensor:
        """`b x k`, one-hot in value."""
        if self.decider is not None:
            logits = self.decider.logits(run.features, run.memory, run.setting)
            return self.decider.weights(logits, run)
        count = run.features.shape[0]
        like = run.features.new_zeros(count, len(self.variants))
        if run.progress is None or not self.drawn:
            level = len(self.variants) - 1 if run.progress is not None else self._level(run.setting)
            return one_hot(torch.full((count,), level, device=like.device), like)
        drawn = uniform(torch.Size((count,)), like, run.generator)
        return one_hot((drawn * len(self.variants)).long(), like)

    def _level(self, setting: Mapping[str, float]) -> int:
        """The variant that a knob without a gate picks."""
        value = setting.get(self.knob or "", 0.0)
        if value not in self.levels:
            known = ", ".join(f"{level:g}" for level in self.levels)
            raise SpecError(f"policy.setting.{self.knob}", f"must be one of {known}, but got {value:g}")
        return self.levels.index(value)

    def route(self, run: Routing) -> None:
        """All inputs that picked a variant run the rest of the network together."""
        groups = self._groups(run)
        if len(groups) == 1:
            self._follow(run, next(iter(groups)))
            return
        everybody = torch.arange(run.size, device=run.features.device) if run.alive is None else run.alive
        for j, rows in groups.items():
            assert rows is not None
            sub = replace(
                run,
                features=run.features.index_select(0, rows),
                alive=everybody.index_select(0, rows),
                state=None if run.state is None else run.state.index_select(0, rows),
                memory={name: kept.index_select(0, rows) for name, kept in run.memory.items()},
            )
            sub.variant = self.variants[j]
            sub.record(MOVE)
            self._follow(sub, j)
            run.logits, run.exit_taken = sub.logits, sub.exit_taken
        run.done = True

    def _groups(self, run: Routing) -> dict[int, Tensor | None]:
        """Variant -> the rows that picked it; None: all."""
        if self.decider is None:
            return {self._level(run.setting): None}
        run.record(GATE)
        picked = self.decider.pick(self.decider.logits(run.features, run.memory, run.setting))
        if isinstance(picked, int):
            return {picked: None}
        rows = {j: (picked == j).nonzero().flatten() for j in range(len(self.variants))}
        used = {j: each for j, each in rows.items() if each.numel()}
        return dict.fromkeys(used) if len(used) == 1 else dict(used)

    def _follow(self, run: Routing, j: int) -> None:
        run.variant = self.variants[j]
        if not self.idle[j]:
            run.record(ENTER)
            run.features = self.enters[j](run.features)
        chain.route(self.chains()[j][1], run)

    def export(self, run: Simulation, exports: Exports) -> list[Op]:
        """The gate and what runs under each variant; without a gate the one variant that the knob stands at."""
        if self.decider is None:
            return self._export(run, exports, self._level(exports.setting))
        gate = gate_op(exports, GATE, Picking(self.decider, exports.setting), self.decider.unit, run)
        return [
            {"op": "fork", "gate": gate, "variants": [self._export(run, exports, j) for j in range(len(self.rest))]}
        ]

    def _export(self, run: Simulation, exports: Exports, j: int) -> list[Op]:
        exports.variant = self.variants[j]
        made: list[Op] = []
        if not self.idle[j]:
            name = exports.program(ENTER, self.enters[j], run.features)
            made.append({"op": "run", "program": name, "takes": ["x"], "gives": ["x"]})
        made += chain.export(self.chains()[j][1], self._enter(run, j), exports)
        exports.variant = None
        return made


def _added(total: list[Tensor] | None, more: list[Tensor]) -> list[Tensor]:
    """Element by element."""
    return more if total is None else [a + b for a, b in zip(total, more, strict=True)]

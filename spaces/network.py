"""Dynamic network: a chain of steps that is trained in simulated mode and used in routed mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from . import chain
from .architecture import Architecture
from .decisions import decision
from .errors import ShapeError, SpecError
from .exit_step import ExitStep
from .exports import Exported, Exports
from .policy import Policy
from .resource import ResourceTarget
from .signature import Signature, ramp_input
from .step import AbstractStep, Routing, Simulation
from .trace import Part, Recorder


@final
@dataclass(frozen=True)
class Routed:
    """What routed mode returns.

    Args:
        logits: `b x c`, of the exit each input left at.
        exit_taken: `b`, numbers of these exits; the final head comes after the early ones.
    """

    logits: Tensor
    exit_taken: Tensor


@final
class DynamicNetwork(nn.Module):
    """A built candidate.

    Args:
        architecture: what it was built from.
        signature: inputs and classes.
        steps: the chain; its last step ends in the final head.
        targets: what training charges for.

    `levels` holds the only values of those knobs that name one of a few ways.
    """

    def __init__(
        self,
        architecture: Architecture,
        signature: Signature,
        steps: Sequence[AbstractStep],
        *,
        targets: tuple[ResourceTarget, ...] = (),
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.signature = signature
        self.targets = targets
        self.steps = nn.ModuleList(steps)
        self.exits = chain.number(steps)
        whole = [step for _, step in chain.walk(steps)]
        self.knobs = tuple(dict.fromkeys(step.knob for step in whole if step.knob is not None))
        self.levels = {step.knob: step.levels for step in whole if step.knob is not None and step.levels}
        self._schemes = tuple({s.name for s in step.decisions} for step in self.exit_steps)

    @property
    def exit_steps(self) -> tuple[ExitStep, ...]:
        """The early exits in depth order; those under all variants of a fork share their temperature."""
        return tuple(step for step in chain.path(self._chain) if isinstance(step, ExitStep))

    @property
    def _chain(self) -> Sequence[AbstractStep]:
        return self.steps  # type: ignore[return-value]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Simulated mode: the logits `b x c` of every exit, the final head last."""
        return tuple(self.simulate(x, progress=0.0 if self.training else None).logits)

    def simulate(
        self,
        x: Tensor,
        *,
        setting: Mapping[str, float] | None = None,
        progress: float | None = None,
        generator: torch.Generator | None = None,
        shuffle: torch.Generator | None = None,
    ) -> Simulation:
        """Simulated mode, with all that can be known of it.

        Args:
            x: `b x ...` raw inputs.
            setting: value of each knob, absent ones at 0.
            progress: share of the training that is done; None: decisions as in routed mode.
            generator: of the noise of training.
            shuffle: permutes decisions among inputs.
        """
        run = Simulation(x, setting or {}, progress, generator, shuffle)
        chain.simulate(self._chain, run)
        return run

    @torch.no_grad()
    def route(self, x: Tensor, policy: Policy, recorder: Recorder | None = None) -> Routed:
        """Routed mode: each input runs only until it leaves.

        One input branches on its decisions; a batch is compacted whenever some leave.

        Args:
            x: `b x ...` raw inputs.
            policy: when to leave.
            recorder: collects what ran, for `b` inputs.

        Raises:
            ShapeError: if inputs or policy do not fit the network.
            SpecError: if the network is in training mode, where batches would influence each other, or was not
                built for the policy's decision scheme.
        """
        scheme = decision(policy.decision, "policy.decision")
        self._check(x, policy)
        run = Routing(x, policy, scheme, recorder, size=x.shape[0], setting=dict(policy.setting))
        chain.route(self._chain, run)
        assert run.logits is not None
        assert run.exit_taken is not None
        return Routed(run.logits, run.exit_taken)

    @torch.no_grad()
    def parts(self) -> tuple[Part, ...]:
        """All parts that routed mode may run, in execution order, with example inputs at batch 1."""
        example = ramp_input(self.signature, next(self.parameters()))
        return tuple(chain.parts(self._chain, Simulation(example)))

    @torch.no_grad()
    def export(self, policy: Policy) -> Exported:
        """What this network under this policy needs at run time, away from dynarch.

        Raises:
            SpecError, ShapeError: as `route`; or if a step cannot be exported, which it names.
        """
        example, exports = ramp_input(self.signature, next(self.parameters())), Exports(policy)
        self._check(example, policy)
        steps = chain.export(self._chain, Simulation(example, exports.setting), exports)
        return Exported(steps, exports.programs)

    def _check(self, x: Tensor, policy: Policy) -> None:
        if self.training:
            raise SpecError("network", "routed mode needs evaluation mode; call network.eval() first")
        if x.shape[0] == 0 or tuple(x.shape[1:]) != self.signature.input_shape:
            raise ShapeError(f"inputs must be b x {self.signature.input_shape} with b >= 1, got {tuple(x.shape)}")
        if len(policy.thresholds) != self.exits:
            raise ShapeError(
                f"the policy must have one threshold an exit, but has {len(policy.thresholds)} for {self.exits} exits"
            )
        for name, _ in policy.setting:
            if name not in self.knobs:
                known = ", ".join(self.knobs) or "none"
                raise SpecError(f"policy.setting.{name}", f"is no knob of this network (its knobs: {known})")
        for threshold, schemes in zip(policy.thresholds, self._schemes, strict=True):
            # Its decisions would run without a place in the trace, and so without a price.
            if threshold not in (None, -math.inf) and policy.decision not in schemes:
                known = ", ".join(sorted(schemes))
                raise SpecError("policy.decision", f"must be one of this network's ({known}), got {policy.decision!r}")


@final
class RoutedNetwork(nn.Module):
    """A trained network with the policy of one operating point: an ordinary module that skips work.

    Args:
        network: trained.
        policy: when to leave.
    """

    def __init__(self, network: DynamicNetwork, policy: Policy) -> None:
        super().__init__()
        self.network = network.eval()
        self.policy = policy

    def train(self, mode: bool = True) -> RoutedNetwork:
        """Stays in evaluation mode: routing a batch in training mode would let its inputs influence each other."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits `b x c`."""
        return self.route(x).logits

    def route(self, x: Tensor) -> Routed:
        """Logits and the exit each input took."""
        return self.network.route(x, self.policy)

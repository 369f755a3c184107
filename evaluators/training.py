"""Training loop: one candidate, epoch by epoch, with checkpoints that continue bit for bit."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from ..spaces.adopted.tape import learning
from ..spaces.architecture import Architecture
from ..spaces.backbone import Signature
from ..spaces.distillation import taught
from ..spaces.errors import EvaluationFailed
from ..spaces.exit_objectives import AbstractExitObjective, EqualWeights, cross_entropies, exit_objective
from ..spaces.network import DynamicNetwork
from ..spaces.normalize import Normalize
from ..spaces.resource import ResourceTarget
from ..spaces.space import build, recipe_of
from ..spaces.step import Simulation
from ..spaces.teacher import teacher_of
from .atomic import replacing
from .augmentation import augment
from .confidence import confidence_loss
from .splits import Part, Splits

# A network -> one that gives the same for other inputs, and these; None: the network itself will do.
Shadow = Callable[[DynamicNetwork], tuple[DynamicNetwork, Splits] | None]

WARMUP_SHARE = 0.1  # of all steps
CHARGE_SETS_IN = 0.3  # share of the training after which a resource loss has its full weight: tasks come first
CLIP = 5.0  # gradient norm; rare, but one bad batch must not cost a candidate


def training_device() -> torch.device:
    """CUDA where present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@final
class TrainingRun:
    """The training of one architecture to a number of epochs fixed from the start.

    The schedule is that of the full training whatever rung the run is stopped at, so a stopped candidate is
    exactly the beginning of a finished one.

    Args:
        architecture: what to train.
        splits: data; only `train` is used here.
        signature: inputs and classes.
        epochs: full fidelity.
        seed: fixes initial weights, order, augmentation and the noise of decisions.
        device: where to train.
        costs: resource (`macs`, `latency`) -> part -> cost, for networks that are charged for what they run.
        shadow: another network that gives the same for other inputs, with these; None: as for the network itself.

    `trained` is what runs on `splits`: the network itself, or its shadow.

    Raises:
        SpecError: if the architecture cannot be built, or is charged for parts whose cost is not given.
    """

    def __init__(
        self,
        architecture: Architecture,
        splits: Splits,
        *,
        signature: Signature,
        epochs: int,
        seed: int,
        device: torch.device | None = None,
        costs: Mapping[str, Mapping[str, float]] | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.device = device or training_device()
        self.recipe = recipe_of(architecture)
        self.teacher = self._build_teacher(architecture, splits, signature=signature, epochs=epochs, seed=seed)
        self.objective = _objective(architecture)
        self.epochs = epochs
        self.epochs_done = 0
        self.train_loss: list[float] = []
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = build(architecture, signature)
        self._charges = [(target, target.prices(costs or {})) for target in self.network.targets]
        fit_normalization(self.network, splits.train)
        self.network.to(self.device)
        made = None if shadow is None else shadow(self.network)
        self.trained, self.splits = (self.network, splits) if made is None else made
        self._train = self.splits.train
        self._steps = math.ceil(len(splits.train) / self.recipe.batch_size)
        self._optimizer = torch.optim.AdamW(
            [{"params": weights, "rate": rate} for rate, weights in learning(self.network)],
            self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )

    def _build_teacher(
        self, architecture: Architecture, splits: Splits, *, signature: Signature, epochs: int, seed: int
    ) -> TrainingRun | None:
        """The training of the static network that teaches this one, if one does."""
        static = teacher_of(architecture)
        if static is None:
            return None
        return TrainingRun(static, splits, signature=signature, epochs=epochs, seed=seed, device=self.device)

    def prepare(self) -> bool:
        """Train the teacher, if there is one, for one of the epochs that it lacks; whether there was one.

        Raises:
            EvaluationFailed: as `train_to`.
        """
        if self.teacher is None or self.teacher.epochs_done == self.teacher.epochs:
            return False
        try:
            self.teacher.train_to(self.teacher.epochs_done + 1)
        except EvaluationFailed as error:
            raise EvaluationFailed(f"of its teacher, {error}") from error
        return True

    def train_to(self, epoch: int) -> None:
        """Train until `epoch` epochs are done; a teacher is trained to its end before the first of them.

        Raises:
            EvaluationFailed: if the loss is no longer a finite number, or memory runs out.
        """
        while self.epochs_done < min(epoch, self.epochs) and self.prepare():
            pass
        try:
            while self.epochs_done < min(epoch, self.epochs):
                self._epoch()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EvaluationFailed(f"out of memory in epoch {self.epochs_done + 1}: {error}") from error

    def _epoch(self) -> None:
        # Seeded by the epoch, so that a run continued from a checkpoint sees what it would have seen.
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self.epochs_done)
        self.trained.train()
        order = torch.randperm(len(self._train), generator=generator)
        total = 0.0
        batches = torch.split(order, self.recipe.batch_size)
        if not any(group["params"] for group in self._optimizer.param_groups):
            order = batches[0]  # nothing learns, so one batch says what there is to say
        for step, rows in enumerate(torch.split(order, self.recipe.batch_size)):
            if len(rows) < 2:  # batch normalisation cannot learn from a single input
                continue
            self._set_rate(self.epochs_done * self._steps + step)
            x = augment(self._train.x[rows], generator, shift=self.recipe.shift, flip=self.recipe.flip)
            progress = (self.epochs_done * self._steps + step) / (self.epochs * self._steps)
            x = x.to(self.device)
            run = self.trained.simulate(x, progress=progress, generator=generator)
            total += self._step(run, self._train.y[rows].to(self.device), progress, self._taught(x)) * len(rows)
        self.epochs_done += 1
        self.train_loss.append(total / len(order))

    def _taught(self, x: Tensor) -> Tensor | None:
        """What the teacher says of these inputs, `b x c`."""
        if self.teacher is None:
            return None
        with torch.no_grad():
            return self.teacher.network.eval().simulate(x).logits[-1]

    def _step(self, run: Simulation, y: Tensor, progress: float, teacher: Tensor | None) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        losses = cross_entropies(run.logits, y, label_smoothing=self.recipe.label_smoothing)
        if self.recipe.distillation is not None:
            losses = taught(losses, run.logits, self.recipe.distillation, teacher)
        loss = self.objective.weigh(losses)
        sets_in = min(1.0, progress / CHARGE_SETS_IN)
        for target, prices in self._charges:
            loss = loss + sets_in * target.loss(run.usage, prices)
        for penalty in run.penalties:
            loss = loss + penalty
        if run.log_probs:
            loss = loss + policy_gradient(run, y, self._charges, sets_in)
        value = float(loss.item())  # what the network learns from; scores learn beside it
        loss = loss + confidence_loss(run.scores, run.logits, y)
        if not math.isfinite(value + float(loss.item())):
            raise EvaluationFailed(f"the training loss became {value} in epoch {self.epochs_done + 1}")
        if not loss.requires_grad:  # an adopted network, frozen, with nothing new in it
            return value
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self._optimizer.step()
        return value

    def _set_rate(self, step: int) -> None:
        total = self.epochs * self._steps
        warmup = max(1, round(WARMUP_SHARE * total))
        if step < warmup:
            factor = (step + 1) / warmup
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * factor * group.get("rate", 1.0)  # old checkpoints have none

    def save(self, file: Path) -> None:
        """Write a checkpoint atomically: a reader sees the old one or the new one, never half of one."""
        written = io.BytesIO()  # torch writes files on its own, and says no more than that it could not
        torch.save(self._state(), written)
        with replacing(file) as stream:
            stream.write(written.getvalue())

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "epochs_done": self.epochs_done,
            "train_loss": self.train_loss,
            "teacher": None if self.teacher is None else self.teacher._state(),
        }

    def load(self, file: Path) -> None:
        """Continue from a checkpoint of the same architecture; nothing is unpickled but tensors and numbers."""
        self._restore(torch.load(file, map_location=self.device, weights_only=True))

    def _restore(self, state: Mapping[str, Any]) -> None:
        if self.teacher is not None:
            self.teacher._restore(state["teacher"])
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epochs_done = int(state["epochs_done"])
        self.train_loss = [float(value) for value in state["train_loss"]]


def policy_gradient(
    run: Simulation, y: Tensor, charges: Sequence[tuple[ResourceTarget, Mapping[str, float]]], sets_in: float
) -> Tensor:
    """The loss whose gradient is REINFORCE's: decisions that cost an input more than others become less likely.

    Cost of an input: cross entropy at the final head, and its part in the gradient of the resource loss. The mean of
    the batch is the baseline.

    Source: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992.
    """
    with torch.no_grad():
        cost = functional.cross_entropy(run.logits[-1], y, reduction="none")
        for target, prices in charges:
            spent = target.spent(run.usage, prices)
            share = (spent * spent.new_tensor(target.weights(prices))).sum(1)
            cost = cost + sets_in * 2 * target.choice.weight * (share.mean() - target.choice.target) * share
        advantage = cost - cost.mean()
    return (advantage * torch.stack(run.log_probs, 1).sum(1)).mean()


def fit_normalization(network: DynamicNetwork, train: Part) -> None:
    """Set the input normalisation to the mean and deviation of each channel of the training split."""
    for module in network.modules():
        if isinstance(module, Normalize):
            module.fit(train.x)


def _objective(architecture: Architecture) -> AbstractExitObjective:
    named = [choice["objective"] for choice in architecture.families.values() if "objective" in choice]
    return exit_objective(named[0], "architecture.families.objective") if named else EqualWeights()

"""Probes: looking at spaces and networks from outside, the slow and plain way, for the contracts in `testing.py`."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import chain
from .architecture import Architecture
from .backbone import AbstractBackbone, Backbone, Outline, Signature
from .decisions import decision
from .exit_step import ExitStep
from .family import AbstractFamily
from .gradients import GRADIENTS
from .gradients.gumbel import Gumbel
from .network import DynamicNetwork
from .policy import Policy
from .scope import Chance, Scalar, Scope, enumerate_points
from .signature import random_inputs
from .space import Space, backbone_outline, build
from .step import AbstractStep
from .trace import COMPACT, Recorder, counts, within

Candidate = tuple[dict[str, Scalar], Architecture]
SIGNATURES = {  # a small task of each kind
    "image": Signature((1, 8, 8), 4),
    "text": Signature((6,), 4, "text", 9),
    "sequence": Signature((6, 1 + 3), 4, "sequence"),
    "clip": Signature((3, 1, 8, 8), 4, "clip"),
}

# The package's root is put in place unread: it would load every storey above, which takes seconds.
_IDS_ELSEWHERE = """
import json, sys, types
root = sys.modules["{root}"] = types.ModuleType("{root}")
root.__path__ = [{folder!r}]
from {package} import Signature, Space
for line in sys.stdin:
    task = json.loads(line)
    space, signature = Space.from_mapping(task["space"]), Signature.from_mapping(task["signature"])
    print(json.dumps([space.replay(params, signature).id for params in task["params"]]), flush=True)
"""
ALONE = 4  # inputs that are run one by one as well
_TINY_GAP = 4e-6  # thresholds keep half of this from every score: no rounding can flip a decision


@final
class Asked:
    """Answers at random, and notes the range of every name; `ranges` may be shared by many."""

    def __init__(self, seed: int, ranges: dict[str, set[object]]) -> None:
        self._chance = Chance(np.random.default_rng(seed))
        self._ranges = ranges
        self.params = self._chance.params

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """A random choice."""
        self._ranges.setdefault(name, set()).add(tuple((type(choice), choice) for choice in choices))
        return self._chance.suggest_categorical(name, choices)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A random integer."""
        self._ranges.setdefault(name, set()).add((low, high))
        return self._chance.suggest_int(name, low, high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A random number."""
        self._ranges.setdefault(name, set()).add((low, high, log))
        return self._chance.suggest_float(name, low, high, log=log)


@cache
def fitting(family: AbstractFamily, backbone: AbstractBackbone, signature: Signature) -> tuple[Any, Outline] | None:
    """The first choice of a backbone on which a family has something to choose, and its outline; None: it does not fit.

    The first options are the smallest, so its members can be listed.
    """
    fewest = 1 if family.rewrites_blocks or family.forks else 2  # families that are free to stay away count that too
    for _, choice in enumerate_points(backbone.suggest):
        shapes = backbone_outline(backbone.name, choice, signature)
        if family.size(shapes) >= fewest:
            return choice, shapes
    return None


def sample(space: Space, signature: Signature, *, number: int) -> list[Candidate]:
    """Architectures at random, those with most to say first, each once, with the answers that make them."""
    found: dict[Architecture, dict[str, Scalar]] = {}
    for seed in range(10 * number):
        chance = Chance(np.random.default_rng(seed))
        found.setdefault(space.sample(Scope(chance), signature), chance.params)
    return [(found[each], each) for each in sorted(found, key=lambda each: -len(each.canonical))[:number]]


def ids_elsewhere(space: Space, signature: Signature, params: Sequence[Mapping[str, Scalar]]) -> list[str]:
    """The ids that another process, with another seed of Python's hashes, gives to replayed architectures."""
    task = {"space": space.to_mapping(), "signature": signature.to_mapping(), "params": list(params)}
    process = _elsewhere()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the other process could not replay them; its error is printed above"
    return [str(each) for each in json.loads(line)]


@cache
def _elsewhere() -> subprocess.Popen[str]:
    """The other process: one for all, as its imports take seconds. It ends with its input."""
    root, folder = __name__.partition(".")[0], str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _IDS_ELSEWHERE.format(package=__package__, root=root, folder=folder)],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def fresh(architecture: Architecture, signature: Signature, *, inputs: int) -> tuple[DynamicNetwork, Tensor]:
    """A network in evaluation mode with weights of seed 0, and random inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(architecture, signature).eval(), random_inputs(signature, inputs)


def trained(architecture: Architecture, signature: Signature, *, inputs: int) -> tuple[DynamicNetwork, Tensor]:
    """A network in evaluation mode, taught random labels for a moment, and its inputs.

    Without it all inputs get the same answer: patience would meet no doubt, and thresholds divide nobody.
    """
    with torch.random.fork_rng(devices=[]):
        network, x = fresh(architecture, signature, inputs=inputs)
        network.train()
        labels = torch.randint(signature.classes, (inputs,), generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            logits = network.simulate(x, progress=0.5).logits
            torch.stack([functional.cross_entropy(each, labels) for each in logits]).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            for _ in range(15):
                network(x)  # running statistics come near those of the inputs, and answers stay of order one
        for step in network.exit_steps:
            step.temperature.fill_(0.5 + 0.25 * step.index)
    return network.eval(), x


def simulate(logits: Sequence[Tensor], policy: Policy, exits: Sequence[ExitStep]) -> Tensor:
    """The exit that each of `b` inputs takes, from everybody's logits `b x c` at every exit."""
    last, state = len(logits) - 1, None
    taken = torch.full((logits[0].shape[0],), last)
    for exit_index, threshold in enumerate(policy.thresholds):
        if threshold is not None:
            learned = exits[exit_index].learned_of(policy.decision)
            score, state = decision(policy.decision).score(logits[exit_index], state, learned)
            taken[(score > threshold) & (taken == last)] = exit_index
    return taken


@torch.no_grad()
def policies(logits: Sequence[Tensor], steps: Sequence[ExitStep], schemes: Sequence[str], *, seed: int) -> list[Policy]:
    """The full network, every single exit, and for each scheme thresholds midway between scores, exits switched off."""
    exits, g = len(logits) - 1, np.random.default_rng(seed)
    made = [Policy.never(exits), *(Policy.single(exits, k) for k in range(exits))]
    for name in schemes if exits else ():
        for tried in ((True,) * exits, (True,) * exits, tuple(bool(k != seed % exits) for k in range(exits))):
            thresholds: tuple[float | None, ...] = ()
            for k in range(exits):
                threshold = _midway(logits, steps, Policy(name, (*thresholds, 0.0)), g) if tried[k] else None
                thresholds = (*thresholds, threshold)
            made.append(Policy(name, thresholds))
    return made


def _midway(logits: Sequence[Tensor], steps: Sequence[ExitStep], policy: Policy, g: np.random.Generator) -> float:
    """A threshold for the policy's last exit that lies between two scores of those who get there, if two differ."""
    here, state, scheme = len(policy.thresholds) - 1, None, decision(policy.decision)
    for k, threshold in enumerate(policy.thresholds):
        if threshold is not None:
            score, state = scheme.score(logits[k], state, steps[k].learned_of(policy.decision))
    before = simulate([*logits[:here], logits[-1]], Policy(policy.decision, policy.thresholds[:here]), steps)
    scores = score[before == here]
    ordered = torch.unique(scores.double())  # sorted
    gaps = (ordered.diff() > _TINY_GAP).nonzero().flatten()
    if len(gaps) == 0:
        return float(ordered[-1]) + 0.5 if len(ordered) else 0.5
    at = int(gaps[int(g.integers(len(gaps)))])
    return float(ordered[at] + ordered[at + 1]) / 2


def walk(network: DynamicNetwork) -> Iterator[tuple[str | None, AbstractStep]]:
    """Every step of a network, with the variant that it runs under."""
    return chain.walk([step for step in network.steps if isinstance(step, AbstractStep)])


@contextmanager
def hooked(network: DynamicNetwork) -> Iterator[Counter[str]]:
    """Counts, by hooks of torch, the inputs that really run through each part that has weights."""
    rows: Counter[str] = Counter()

    def watch(module: nn.Module, name: str) -> Any:
        return module.register_forward_hook(lambda _module, given, _made: rows.update({name: given[0].shape[0]}))

    handles = []
    for variant, step in walk(network):
        handles += [watch(module, within(name, variant)) for name, module in step.watched().items()]
    yield rows
    for handle in handles:
        handle.remove()


def settings(network: DynamicNetwork, x: Tensor, *, seed: int, most: int = 3) -> list[dict[str, float]]:
    """Settings of the knobs that keep clear of every border, those first that divide the inputs."""
    if not network.knobs:
        return [{}]
    free = [knob for knob in network.knobs if knob not in network.levels]
    rows = [[(knob, value) for value in values] for knob, values in network.levels.items()]
    named = [{knob: value for knob, value in row if value} for row in product(*rows)]
    if not free:
        return named
    with torch.no_grad():
        margins = network.simulate(x).margins
    levels = [(knob, -float(gaps.double().median())) for knob, each in margins.items() for gaps in each]
    order = np.random.default_rng(seed).permutation(len(levels))
    tried = [
        {**named[n % len(named)], levels[i][0]: levels[i][1] + 1e-3 * k} for n, i in enumerate(order) for k in (1, -3)
    ]
    found = [setting for setting in (*tried, {}) if _clear(network, x, setting)]
    assert found, "no setting of the knobs keeps clear of every border"
    return sorted(found, key=lambda setting: not _divides(network, x, setting))[:most]


def _divides(network: DynamicNetwork, x: Tensor, setting: dict[str, float]) -> bool:
    with torch.no_grad():
        usage = network.simulate(x, setting=setting).usage
    return any(bool(used.min() < used.max()) for used in usage.values())


def _clear(network: DynamicNetwork, x: Tensor, setting: dict[str, float]) -> bool:
    """Whether no decision is so near its border that rounding could flip it."""
    with torch.no_grad():
        margins = network.simulate(x, setting=setting).margins
    return all(float(each.abs().min()) > _TINY_GAP for gaps in margins.values() for each in gaps)


def pieces_of(network: DynamicNetwork, backbone: Backbone) -> set[tuple[object, ...]]:
    """What a latency table must know of a network: segments by the blocks they hold, other parts by their tokens."""
    names = {id(backbone.stem): "stem", id(backbone.head): "head"}
    names |= {id(block): f"block {index}" for index, block in enumerate(backbone.blocks)}
    found: set[tuple[object, ...]] = set()
    for part in network.parts():
        if isinstance(part.call, nn.Sequential):
            found.add((part.info.kind, *(names.get(id(child), type(child).__name__) for child in part.call)))
        else:
            shapes = tuple(tuple(x.shape) for x in part.inputs)
            found.add((part.info.kind, part.info.decision, part.token, shapes))
    return found


def check_routing(network: DynamicNetwork, x: Tensor, policy: Policy) -> Tensor:
    """Routed mode does what simulated mode says, as a batch and one by one; gives the exits taken."""
    infos = tuple(part.info for part in network.parts())
    with torch.no_grad():
        run = network.simulate(x, setting=dict(policy.setting))
        taken = simulate(run.logits, policy, network.exit_steps)
    answers = torch.stack([run.logits[exit_index][row] for row, exit_index in enumerate(taken.tolist())])
    trace = counts(infos, policy, taken.numpy(), {name: used.numpy() for name, used in run.usage.items()})
    ran = [column for column, info in enumerate(infos) if info.kind != COMPACT]
    named = {within(name, variant) for variant, step in walk(network) for name in step.watched()}
    watched = [column for column in ran if infos[column].name in named]
    for pieces in ([x], torch.split(x[:ALONE], 1)):
        start = 0
        with hooked(network) as rows:
            for piece in pieces:
                here = slice(start, start + len(piece))
                recorder = Recorder(len(piece))
                routed = network.route(piece, policy, recorder)
                assert routed.exit_taken.tolist() == taken[here].tolist(), policy.describe()
                torch.testing.assert_close(routed.logits, answers[here], rtol=0, atol=1e-5)
                assert np.array_equal(recorder.counts(infos)[:, ran], trace[here][:, ran]), policy.describe()
                start += len(piece)
        expected = {infos[column].name: trace[:start, column].sum() for column in watched}
        assert {info: rows[info] for info in expected} == expected, policy.describe()
    return taken


def check_gradients(
    logits: Sequence[Tensor],
    module: nn.Module,
    *,
    log_probs: Sequence[Tensor] = (),
    scores: Sequence[Tensor] = (),
) -> None:
    """Every weight that learns has a finite gradient, and something of it arrives.

    Args:
        logits: one tensor an exit.
        module: whose weights.
        log_probs: of decisions that were drawn; rewards that differ from input to input stand in for a task's.
        scores: of schemes that learn.
    """
    labels = torch.arange(len(logits[0])) % logits[0].shape[1] if logits else torch.zeros(0)
    loss = sum((functional.cross_entropy(x, labels) for x in logits), torch.zeros(()))
    for each in log_probs:
        loss = loss + (each * torch.linspace(-1, 1, len(each))).sum()
    for each in scores:
        loss = loss + (each * torch.linspace(-1, 1, len(each))).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, weight in ((name, each) for name, each in module.named_parameters() if each.requires_grad):
        assert weight.grad is not None, f"no gradient reaches {name}"
        assert bool(torch.isfinite(weight.grad).all()), name
        assert bool(weight.grad.any()), f"the gradient of {name} is zero"


def with_gradients(architecture: Architecture, family: str) -> list[Architecture]:
    """The same architecture with every gradient estimator in turn, if its family learns to decide."""
    whole = architecture.to_mapping()
    choice = whole["families"].get(family, {})
    if not choice.get("gating"):
        return [architecture]
    made = []
    for member in GRADIENTS:
        gating = {"gate": choice["gating"]["gate"], "gradient": member.name}
        if member.name == Gumbel.name:
            gating |= {"temperature": 0.5, "schedule": "exponential"}
        else:
            gating |= {"temperature": None, "schedule": None}
        families = {**whole["families"], family: {**choice, "gating": gating}}
        made.append(Architecture.from_mapping({**whole, "families": families}))
    return made

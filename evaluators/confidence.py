"""Learned confidence: what makes the scores of schemes that learn the probabilities of being right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..spaces.decisions import DECISIONS
from ..spaces.network import DynamicNetwork
from .score_table import exit_logits
from .splits import Part

STEPS = 150
RATE = 0.05
DECAY = 0.01  # few inputs, many classes: offsets that nothing speaks for stay near 0
_TINY = 1e-6


def confidence_loss(scores: Mapping[str, Sequence[Tensor]], logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Mean over exits of the cross entropy between scores and whether the exit is right; 0 where nothing learns.

    Neither scores nor answers send a gradient into the network.

    Args:
        scores: scheme -> `b` for each early exit.
        logits: `b x c` for each exit, the final head last.
        labels: `b`.
    """
    losses = [
        functional.binary_cross_entropy(score.clamp(_TINY, 1 - _TINY), (answer.argmax(1) == labels).float())
        for listed in scores.values()
        for score, answer in zip(listed, logits, strict=False)
    ]
    return torch.stack(losses).mean() if losses else logits[-1].new_zeros(())


def fit_confidence(network: DynamicNetwork, part: Part) -> None:
    """Fit the scores of schemes that learn on the calibration split, the exits being tempered.

    What a network gets right of its own training data says little about what it gets right elsewhere.
    """
    schemes = [scheme for scheme in DECISIONS if scheme.learns]
    for step, logits in zip(network.exit_steps, exit_logits(network, part.x), strict=False):
        for scheme in schemes:
            learned = step.learned_of(scheme.name)
            if learned is None:
                continue
            device = next(learned.parameters()).device
            given, labels = logits.to(device), part.y.to(device)
            optimizer = torch.optim.AdamW(learned.parameters(), RATE, weight_decay=DECAY)
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss = confidence_loss({scheme.name: [scheme.score(given, None, learned)[0]]}, [given], labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

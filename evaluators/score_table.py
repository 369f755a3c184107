"""Score table: what a trained candidate leaves behind.

For every input of a split and every exit: the confidence measures, the prediction, and the label. From it
any policy on any device is scored without running the network again.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..spaces.decisions import DECISIONS
from ..spaces.errors import DataError
from ..spaces.network import DynamicNetwork
from .splits import Part


@final
@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of one candidate on one split.

    Args:
        scores: measure -> `n x e` scores of the early exits, larger is surer; only memoryless measures.
        predictions: `n x (e+1)` predicted classes, the final head last.
        labels: `n`.
    """

    scores: Mapping[str, NDArray[np.float32]]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`n x (e+1)`."""
        return np.equal(self.predictions, self.labels[:, None])

    def save(self, file: Path) -> None:
        """Write atomically as `.npz`."""
        arrays: dict[str, NDArray[Any]] = {f"score.{name}": values for name, values in self.scores.items()}
        arrays |= {"predictions": self.predictions, "labels": self.labels}
        partial = file.with_suffix(f".{os.getpid()}.partial")
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        partial.replace(file)

    @classmethod
    def load(cls, file: Path) -> ScoreTable:
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            DataError: if the file is not a score table.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                scores = {key[6:]: archive[key] for key in archive.files if key.startswith("score.")}
                return cls(scores, archive["predictions"], archive["labels"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError("score_table", f"{file} is not a score table ({reason})") from None


@torch.no_grad()
def exit_logits(network: DynamicNetwork, x: Tensor, *, batch: int = 256) -> list[Tensor]:
    """Logits `n x c` of every exit in evaluation mode, on the CPU."""
    network.eval()
    device = next(network.parameters()).device
    chunks = [[logits.cpu() for logits in network(piece.to(device))] for piece in torch.split(x, batch)]
    return [torch.cat(column) for column in zip(*chunks, strict=True)]


def score_table(logits: Sequence[Tensor], labels: Tensor) -> ScoreTable:
    """The table of these logits, one `n x c` tensor for each exit.

    Raises:
        DataError: if logits are not finite.
    """
    if not all(bool(torch.isfinite(x).all()) for x in logits):
        raise DataError("score_table", "logits must be finite, but the network gives NaN or infinity")
    early = logits[:-1]
    scores = {}
    for decision in DECISIONS:
        if not decision.remembers:  # the others follow from the predictions
            columns = [decision.score(x, None)[0] for x in early]
            stacked = torch.stack(columns, 1) if columns else torch.zeros(len(labels), 0)
            scores[decision.name] = stacked.numpy().astype(np.float32)
    predictions = torch.stack([x.argmax(1) for x in logits], 1).numpy().astype(np.int64)
    return ScoreTable(scores, predictions, labels.numpy().astype(np.int64))


def calibrate(network: DynamicNetwork, part: Part) -> tuple[float, ...]:
    """Fit and set the temperature of every early exit on the calibration split.

    A shared threshold means the same at every exit only if their confidences do.

    Returns:
        The temperatures.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    steps = network.exit_steps
    for step in steps:
        step.temperature.fill_(1.0)
    for step, logits in zip(steps, exit_logits(network, part.x), strict=False):
        step.temperature.fill_(_temperature(logits, part.y))
    return tuple(float(step.temperature) for step in steps)


def _temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of least cross entropy, by golden section on its logarithm (the loss is convex in 1/T)."""
    low, high, ratio = -2.0, 3.0, 0.6180339887498949

    def loss(log_t: float) -> float:
        return float(functional.cross_entropy(logits / np.exp(log_t), labels))

    for _ in range(30):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))

"""Score table: what a trained candidate leaves behind.

For every input of a split and every exit: the confidence measures, the prediction, and the label; and how often the
input ran each part that not everybody runs. From it any policy on any device is scored without running the network
again. Knobs change what the network computes, so there is one table for each setting of them that policies may use.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from .atomic import replacing
from .splits import Part

Setting = tuple[tuple[str, float], ...]


@final
@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of one candidate on one split, its knobs at one setting.

    Args:
        scores: measure -> `n x e` scores of the early exits, larger is surer; only memoryless measures.
        predictions: `n x (e+1)` predicted classes, the final head last.
        labels: `n`.
        usage: part -> `n`, how often an input that gets there runs it; parts without an entry run once.
        setting: knobs as (name, value), sorted; those that are absent are at 0.
    """

    scores: Mapping[str, NDArray[np.float32]]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    usage: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    setting: Setting = ()

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`n x (e+1)`."""
        return np.equal(self.predictions, self.labels[:, None])


@final
@dataclass(frozen=True, eq=False)
class ScoreTables:
    """Scores of one candidate on one split at several settings of its knobs; the first has all of them at 0.

    Raises:
        DataError: if there is none, or two of them are at one setting.
    """

    tables: tuple[ScoreTable, ...]

    def __post_init__(self) -> None:
        settings = [table.setting for table in self.tables]
        if not settings or len(set(settings)) < len(settings):
            raise DataError("score_tables", f"needs one table for each setting, but got {settings}")

    @property
    def plain(self) -> ScoreTable:
        """All knobs at 0."""
        return self.tables[0]

    @property
    def labels(self) -> NDArray[np.int64]:
        """`n`."""
        return self.plain.labels

    def at(self, setting: Setting) -> ScoreTable:
        """The table of a setting.

        Raises:
            DataError: if nothing was recorded at it.
        """
        wanted = tuple((name, value) for name, value in setting if value != 0)
        for table in self.tables:
            if table.setting == wanted:
                return table
        raise DataError("policy.setting", f"nothing was recorded at {dict(setting)}")

    def save(self, file: Path) -> None:
        """Write atomically as `.npz`."""
        arrays: dict[str, NDArray[Any]] = {"labels": self.labels}
        settings = [[[name, value] for name, value in table.setting] for table in self.tables]
        arrays["settings"] = np.frombuffer(json.dumps(settings).encode(), dtype=np.uint8)
        for number, table in enumerate(self.tables):
            arrays |= {f"{number}.score.{name}": values for name, values in table.scores.items()}
            arrays |= {f"{number}.usage.{name}": values for name, values in table.usage.items()}
            arrays[f"{number}.predictions"] = table.predictions
        with replacing(file) as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path) -> ScoreTables:
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            DataError: if the file holds no score tables.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            settings = json.loads(arrays["settings"].tobytes())
            return cls(tuple(_read(arrays, number, setting) for number, setting in enumerate(settings)))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError("score_table", f"{file} is not a score table ({reason})") from None


def _read(arrays: Mapping[str, NDArray[Any]], number: int, setting: Sequence[tuple[str, float]]) -> ScoreTable:
    def named(kind: str) -> dict[str, NDArray[np.float32]]:
        prefix = f"{number}.{kind}."
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return ScoreTable(
        named("score"),
        arrays[f"{number}.predictions"],
        arrays["labels"],
        named("usage"),
        tuple((str(name), float(value)) for name, value in setting),
    )


@final
@dataclass(frozen=True, eq=False)
class Recording:
    """What simulated mode says of many inputs, on the CPU.

    Args:
        logits: `n x c` for each exit, the final head last.
        usage: part -> `n`.
        margins: knob -> numbers, one a decision.
        scores: scheme that learns -> `n x e`.
    """

    logits: list[Tensor]
    usage: dict[str, Tensor]
    margins: dict[str, Tensor]
    scores: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def record(
    network: DynamicNetwork,
    x: Tensor,
    *,
    setting: Setting = (),
    shuffle: torch.Generator | None = None,
    batch: int = 256,
) -> Recording:
    """Run inputs `n x ...` through simulated mode in evaluation mode.

    Args:
        network: trained.
        x: inputs.
        setting: of the knobs.
        shuffle: permutes decisions among the inputs of a batch.
        batch: inputs at a time.
    """
    network.eval()
    device = next(network.parameters()).device
    knobs = dict(setting)
    runs = [network.simulate(piece.to(device), setting=knobs, shuffle=shuffle) for piece in torch.split(x, batch)]
    return Recording(
        [torch.cat(column).cpu() for column in zip(*(run.logits for run in runs), strict=True)],
        {name: torch.cat([run.usage[name] for run in runs]).cpu() for name in runs[0].usage},
        {name: torch.cat([gap for run in runs for gap in run.margins[name]]).cpu() for name in runs[0].margins},
        {name: torch.cat([torch.stack(run.scores[name], 1) for run in runs]).cpu() for name in runs[0].scores},
    )


def exit_logits(network: DynamicNetwork, x: Tensor, *, batch: int = 256) -> list[Tensor]:
    """Logits `n x c` of every exit in evaluation mode with all knobs at 0, on the CPU."""
    return record(network, x, batch=batch).logits


def score_table(
    logits: Sequence[Tensor],
    labels: Tensor,
    *,
    usage: Mapping[str, Tensor] | None = None,
    learned: Mapping[str, Tensor] | None = None,
    setting: Setting = (),
) -> ScoreTable:
    """The table of these logits, one `n x c` tensor for each exit.

    Args:
        logits: of all exits, the final head last.
        labels: `n`.
        usage: part -> `n`.
        learned: scheme that learns -> `n x e` scores.
        setting: of the knobs.

    Raises:
        DataError: if logits are not finite.
    """
    if not all(bool(torch.isfinite(x).all()) for x in logits):
        raise DataError("score_table", "logits must be finite, but the network gives NaN or infinity")
    early = logits[:-1]
    scores = {}
    for decision in DECISIONS:
        if not decision.remembers and not decision.learns:  # those that remember follow from the predictions
            columns = [decision.score(x, None)[0] for x in early]
            stacked = torch.stack(columns, 1) if columns else torch.zeros(len(labels), 0)
            scores[decision.name] = stacked.numpy().astype(np.float32)
    scores |= {name: values.numpy().astype(np.float32) for name, values in (learned or {}).items()}
    predictions = torch.stack([x.argmax(1) for x in logits], 1).numpy().astype(np.int64)
    used = {name: values.numpy().astype(np.float32) for name, values in (usage or {}).items()}
    return ScoreTable(scores, predictions, labels.numpy().astype(np.int64), used, setting)


def score_tables(network: DynamicNetwork, part: Part, settings: Sequence[Setting] = ((),)) -> ScoreTables:
    """The tables of a split at these settings of the knobs.

    Raises:
        DataError: if logits are not finite.
    """
    tables = []
    for setting in settings:
        made = record(network, part.x, setting=setting)
        tables.append(score_table(made.logits, part.y, usage=made.usage, learned=made.scores, setting=setting))
    return ScoreTables(tuple(tables))


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

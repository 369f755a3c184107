"""The questions of the held-out protocol, each answered from two halves of the measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dynarch.benchmarks.heldout.networks import each_part
from dynarch.benchmarks.heldout.predictors import (
    Predict,
    Predicted,
    Table,
    baselines,
    corrected,
    distribution,
    entry,
    ladder,
    part_interval,
    predict,
)
from dynarch.benchmarks.heldout.rounds import LARGE, Half, Member, Study
from dynarch.hardware.correction import Correction
from dynarch.hardware.estimate import Estimate
from dynarch.hardware.keys import PartKey
from dynarch.hardware.profile import curve_batches
from dynarch.hardware.table import Visited
from dynarch.hardware.unseen import UnseenParts
from dynarch.hardware.validation import Score, scores
from dynarch.search.report_rows import wilson
from dynarch.spaces.errors import MissingEntryError

Floats = NDArray[np.float64]
OURS: Final = "corrected segment sum"
FLOOR: Final = "repeat measurement"
FOLDS: Final = 5
HIDDEN: Final = 1 / 3  # of the segments that only test networks have


@dataclass(frozen=True)
class Section:
    """One table of the report.

    Args:
        title: what is asked.
        rows: predictor -> its statistics, over what it did not refuse.
        coverage: share of measurements inside the 90 % intervals, with a 95 % Wilson interval; None: no intervals.
        answered: how many were not refused, of how many.
    """

    title: str
    rows: Mapping[str, Mapping[str, Score]]
    coverage: tuple[float, float, float] | None
    answered: tuple[int, int]
    notes: Sequence[str] = field(default=())

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What all questions are answered from.

    Args:
        study: the networks.
        seen: the half that predictors know.
        truth: the half that they are tested on.
        seed: of bootstraps and folds.
    """

    study: Study
    seen: Half
    truth: Half
    seed: int


def sections(evidence: Evidence) -> dict[str, Section]:
    """Every question by a short name; those that too little was measured for are left out."""
    study, table = evidence.study, Table(evidence.seen)
    correction, of_residual = corrected(table, study.calibration), corrected(table, study.residual)
    inverted = [(name, net) for name, net in study.test if net.family != "residual"]
    found = {
        "in_space": _networks("Networks of the space", evidence, study.calibration, study.test, table, correction),
        "unseen_family": _networks(
            "Inverted residual networks, all fitted on residual ones",
            *(evidence, study.residual, inverted, table, of_residual),
        ),
        "hidden_parts": _hidden(evidence, correction),
        "unseen_parts": _nothing_like_it(evidence, inverted, of_residual),
        "batches": _batches(evidence),
        "parts": _parts(evidence),
    }
    for batch, members in study.dynamic.items():
        if members:
            used = correction if batch == 1 else corrected(table, study.fitted_large, batch=batch)
            found |= _dynamic(evidence, used, batch)
    return found


def _networks(
    title: str,
    evidence: Evidence,
    fitted: Sequence[Member],
    tested: Sequence[Member],
    table: Table,
    correction: Correction,
    *,
    beside: bool = True,
) -> Section:
    """Networks on their test paths: ours, the baselines if `beside`, and the same measured again."""
    made = [predict(table, correction, net, net.chosen) for _, net in tested]
    kept = [(name, net) for (name, net), each in zip(tested, made, strict=True) if each is not None]
    known = [each for each in made if each is not None]
    answered = (len(known), len(tested))
    if not known:
        return Section(title, {}, None, answered)
    first, second = (
        [half.ms[f"{name}/{net.chosen}/1"] for name, net in kept] for half in (evidence.seen, evidence.truth)
    )
    others: dict[str, Predict] = baselines(evidence.seen, fitted, [net for _, net in tested]) if beside else {}
    rows = {OURS: [each.ms for each in known]}
    rows |= {name: [other(net, net.chosen) for _, net in kept] for name, other in others.items()}
    return Section(title, _rows(rows | {FLOOR: first}, second, evidence.seed), _coverage(known, second), answered)


def _hidden(evidence: Evidence, correction: Correction) -> Section:
    """A third of the segments that only test networks have is hidden, and told by the ladder."""
    study = evidence.study
    seen = {key.hash for key, _ in each_part([net for _, net in study.calibration])}
    alone = sorted(
        key.hash
        for key, _ in each_part([net for _, net in study.test])
        if key.kind == "segment" and key.hash not in seen
    )
    drawn = np.random.default_rng(evidence.seed).permutation(len(alone))[: round(HIDDEN * len(alone))]
    hidden = frozenset(alone[index] for index in drawn)
    table = _table(evidence, [*study.calibration, *study.test], hidden)
    touched = [
        (name, net) for name, net in study.test if hidden & {k.hash for k in _ran(net.keys, net.runs(net.chosen))}
    ]
    title = f"Networks of the space with parts that were never measured ({len(hidden)} segments)"
    return _networks(title, evidence, study.calibration, touched, table, correction, beside=False)


def _nothing_like_it(evidence: Evidence, inverted: Sequence[Member], correction: Correction) -> Section:
    """Networks of the unseen family, of which no part was measured."""
    known = {key.hash for key, _ in each_part([net for _, net in evidence.study.residual])}
    hidden = frozenset(key.hash for key, _ in each_part([net for _, net in inverted]) if key.hash not in known)
    table = _table(evidence, evidence.study.residual, hidden)
    title = "Inverted residual networks, no part of which was measured"
    return _networks(title, evidence, evidence.study.residual, inverted, table, correction, beside=False)


def _table(evidence: Evidence, measured: Sequence[Member], hidden: frozenset[str]) -> Table:
    estimates = ladder(evidence.seen, [net for _, net in measured], hidden=hidden, seed=evidence.seed)
    return Table(evidence.seen, hidden, estimates)


def _ran(keys: Sequence[PartKey], runs: Floats) -> list[PartKey]:
    return [key for key, n in zip(keys, runs, strict=True) if n > 0]


def _batches(evidence: Evidence) -> Section:
    """Parts at a batch size between measured ones; each time another fifth of the parts lacks one size."""
    sizes = curve_batches(LARGE)
    keys = {key.hash: key for key, _ in each_part([each.net for each in evidence.study.dynamic[LARGE]])}
    rng = np.random.default_rng(evidence.seed)
    order = [str(name) for name in rng.permutation(sorted(keys))]
    asked: list[tuple[Visited, Estimate]] = []
    for fold in range(FOLDS):
        lacking = {(name, int(rng.choice(sizes[1:-1]))) for name in order[fold::FOLDS]}
        visited = [(name, size) for name in keys for size in sizes if (name, size) not in lacking]
        parts = UnseenParts({each: entry(evidence.seen, *each) for each in visited}, keys, seed=evidence.seed)
        asked += [((name, size), parts.estimate(keys[name], size)) for name, size in sorted(lacking)]
    return _estimates("Parts at batch sizes between measured ones", evidence, asked, len(asked))


def _parts(evidence: Evidence) -> Section:
    """Parts at batch 1 that were not measured; each time another fifth of them."""
    keys = {
        key.hash: key for key, _ in each_part([net for _, net in (*evidence.study.calibration, *evidence.study.test)])
    }
    order = [str(name) for name in np.random.default_rng(evidence.seed).permutation(sorted(keys))]
    asked: list[tuple[Visited, Estimate]] = []
    for fold in range(FOLDS):
        lacking = order[fold::FOLDS]
        measured = {(name, 1): entry(evidence.seen, name, 1) for name in keys if name not in lacking}
        parts = UnseenParts(measured, keys, seed=evidence.seed)
        for name in lacking:
            try:
                asked.append(((name, 1), parts.estimate(keys[name], 1)))
            except MissingEntryError:
                continue
    return _estimates("Parts that were never measured", evidence, asked, len(order))


def _estimates(title: str, evidence: Evidence, asked: Sequence[tuple[Visited, Estimate]], total: int) -> Section:
    if not asked:
        return Section(title, {}, None, (0, total))
    first, second = (
        [half.ms[f"part/{name}/{batch}"] for (name, batch), _ in asked] for half in (evidence.seen, evidence.truth)
    )
    known = [Predicted(each.ms, *part_interval(each), each.relsd) for _, each in asked]
    rows = {"ladder": [each.ms for each in known], FLOOR: first}
    return Section(title, _rows(rows, second, evidence.seed), _coverage(known, second), (len(asked), total))


def _dynamic(evidence: Evidence, correction: Correction, batch: int) -> dict[str, Section]:
    """Mean and 95th percentile of networks that inputs leave at different exits, in milliseconds an input."""
    members = evidence.study.dynamic[batch]
    made = [distribution(each, evidence.seen, correction, batch=batch, seed=evidence.seed) for each in members]
    first, second = (
        [half.calls[f"dynamic/{batch}/{number}"] / batch for number in range(len(members))]
        for half in (evidence.seen, evidence.truth)
    )
    shares = [np.bincount(each.taken, minlength=each.net.network.exits + 1) / len(each.taken) for each in members]
    leaving = f"of the inputs {np.mean([1 - share[-1] for share in shares]):.0%} leave early"
    bounds = sum("p95" in each.quantile_is_bound for each in made)
    means = [Predicted(each.mean_ms, each.low_ms, each.high_ms, each.relsd) for each in made]
    found = {}
    for name, predicted, of in (
        ("mean", [each.mean_ms for each in made], np.mean),
        ("p95", [each.p95_ms for each in made], lambda ms: np.quantile(ms, 0.95, method="inverted_cdf")),
    ):
        truth = [float(of(ms)) for ms in second]
        rows = _rows({OURS: predicted, FLOOR: [float(of(ms)) for ms in first]}, truth, evidence.seed)
        notes = [leaving] + ([f"{bounds} of the quantiles are upper bounds"] if name == "p95" and bounds else [])
        coverage = _coverage(means, truth) if name == "mean" else None
        title = f"Dynamic networks at batch {batch}, {name}"
        found[f"dynamic_{batch}_{name}"] = Section(title, rows, coverage, (len(made), len(made)), notes)
    return found


def _rows(
    predicted: Mapping[str, Sequence[float]], truth: Sequence[float], seed: int
) -> dict[str, Mapping[str, Score]]:
    measured, floor = np.array(truth), np.array(predicted[FLOOR])
    return {name: scores(np.array(values), measured, floor_ms=floor, seed=seed) for name, values in predicted.items()}


def _coverage(predicted: Sequence[Predicted], truth: Sequence[float]) -> tuple[float, float, float]:
    held = sum(each.low <= ms <= each.high for each, ms in zip(predicted, truth, strict=True))
    return (held / len(truth), *wilson(held, len(truth)))

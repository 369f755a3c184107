"""Ways to search the policies of one trained network: seconds, and the front they give on samples not searched on.

    python benchmarks/policy.py

A, B and D are single sweeps: quotas in geometric progression and one shared threshold on all exits, and coordinate
ascent. "A+B+D" joins them over several subsets of exits, E is the archive of mutation and crossover (4,000 policies).
Three measures, 24 cuts, 32 points; test hypervolume up to accuracy 0 and 1.2 of the full network's cost, its gain
over A on the same seeds, optimism (hypervolume on the samples searched on, less that on test), median seconds.
Mean +- standard deviation of 5 seeds, one core of a shared two-core machine:

  synthetic, 8 exits, 5,000 samples to search on, 20,000 to test on
    fixed exits          0.6247 +- 0.0014  -0.0525 +- 0.0005  +0.0009   0.000 s
    A quotas             0.6772 +- 0.0018  +0.0000 +- 0.0000  +0.0011   0.022 s
    B shared threshold   0.6809 +- 0.0017  +0.0037 +- 0.0004  +0.0009   0.019 s
    D ascent             0.6541 +- 0.0033  -0.0231 +- 0.0035  +0.0026   0.344 s
    A+B+D, all subsets   0.6899 +- 0.0020  +0.0128 +- 0.0005  +0.0026   0.363 s
    E from random        0.6867 +- 0.0013  +0.0096 +- 0.0015  +0.0035   0.063 s
    E from A+B+D         0.6909 +- 0.0014  +0.0137 +- 0.0007  +0.0041   0.501 s
    search_policies      0.6909 +- 0.0014  +0.0137 +- 0.0007  +0.0041   0.654 s
  digits, 6 logistic heads before the last, 600 samples to search on, 597 to test on
    fixed exits          0.6492 +- 0.0063  -0.0207 +- 0.0023  +0.0033   0.000 s
    A quotas             0.6699 +- 0.0079  +0.0000 +- 0.0000  +0.0054   0.009 s
    B shared threshold   0.6769 +- 0.0077  +0.0069 +- 0.0013  +0.0051   0.009 s
    D ascent             0.6756 +- 0.0073  +0.0056 +- 0.0051  +0.0110   0.148 s
    A+B+D, all subsets   0.6819 +- 0.0055  +0.0119 +- 0.0040  +0.0100   0.195 s
    E from random        0.6831 +- 0.0058  +0.0131 +- 0.0031  +0.0096   0.038 s
    E from A+B+D         0.6833 +- 0.0056  +0.0134 +- 0.0040  +0.0105   0.229 s
    search_policies      0.6842 +- 0.0064  +0.0142 +- 0.0024  +0.0097   0.233 s
  digits, 6 cuts: test 0.6836, optimism +0.0074; 12: 0.6842, +0.0086; 24: 0.6842, +0.0097; 48: 0.6840, +0.0109;
    96: 0.6837, +0.0115
  search_policies, 8 exits x 5,000 samples: 0.61 s; 28 exits x 5,000 samples: 2.35 s

D alone is below A where the front is nearly flat in price, because it finds the convex hull only. On few samples the
evolutionary step gains nothing on test that its spread does not cover, and optimism is as large as the whole
difference between methods: never compare fronts on the samples they were searched on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dynarch.evaluators.pareto import hypervolume, non_dominated, thin
from dynarch.evaluators.policy import ExitProblem, evaluate
from dynarch.evaluators.policy_grid import CutGrid
from dynarch.evaluators.policy_search import Archive, search_policies
from dynarch.evaluators.policy_seeds import ascent, fixed, quotas, seeds, shared
from dynarch.spaces.policy import Policy

DIRECTIONS = ("maximize", "minimize")
CUTS, POINTS, EVALUATIONS, SEEDS = 24, 32, 4000, 5
Split = tuple[ExitProblem, ExitProblem]  # searched on, scored on


def problem(probabilities: NDArray[np.float64], labels: NDArray[np.int64], cost: NDArray[np.float64]) -> ExitProblem:
    """From class probabilities `n x (e+1) x c`; `cost` (`e+1`) sums to 1, a head adds 2 % and a decision 0.2 %."""
    early = np.sort(probabilities[:, :-1], axis=2)
    entropy = (early * np.log(np.maximum(early, 1e-12))).sum(axis=2)
    scores = {"max_prob": early[..., -1], "margin": early[..., -1] - early[..., -2], "entropy": entropy}
    return ExitProblem(
        scores={name: values.astype(np.float32) for name, values in scores.items()},
        predictions=probabilities.argmax(axis=2).astype(np.int64),
        labels=labels,
        segment_ms=cost,
        exit_ms=np.full(len(cost) - 1, 0.02),
        decide_ms=dict.fromkeys((*scores, "patience"), 0.002),
        patience=True,
    )


def synthetic(seed: int, *, exits: int = 8, n: int = 5000) -> Split:
    """Heads of growing skill on samples of varied difficulty; 5,000 to search on, 20,000 to score on."""
    g = np.random.default_rng(seed)
    total, classes = n + 20_000, 10
    difficulty, labels = g.normal(size=total), g.integers(classes, size=total)
    skill = -0.5 + 2.5 * np.sqrt(np.arange(1, exits + 2) / (exits + 1))
    noise = 0.8 * g.normal(size=(total, exits + 1, classes)) + 0.6 * g.normal(size=(total, 1, classes))
    noise[np.arange(total), :, labels] += 2 * (skill - 0.8 * difficulty[:, None])
    odds = np.exp(2 * noise)
    probabilities = odds / odds.sum(axis=2, keepdims=True)
    cost = np.full(exits + 1, 1 / (exits + 1))
    return problem(probabilities[:n], labels[:n], cost), problem(probabilities[n:], labels[n:], cost)


def digits(seed: int) -> Split:
    """Logistic heads on the first 2, 3, ... 8 rows of handwritten digits, trained on a third of them."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    train, tune, test = order[:600], order[600:1200], order[1200:]
    rows = range(2, 9)
    heads = [make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x[train, : 8 * r], y[train]) for r in rows]
    cost = np.array([2, 1, 1, 1, 1, 1, 1]) / 8
    both = []
    for part in (tune, test):
        tables = [head.predict_proba(x[part, : 8 * r]) for head, r in zip(heads, rows, strict=True)]
        both.append(problem(np.stack(tables, axis=1), y[part].astype(np.int64), cost))
    return both[0], both[1]


def sweep(tune: ExitProblem, name: str) -> list[Policy]:
    """The front of one sweep over all measures; quotas and shared thresholds on all exits, as they were proposed."""
    grid, everything = CutGrid(tune, CUTS), np.ones(tune.exits, dtype=np.bool_)
    archive = Archive(grid)
    for m in range(len(grid.measures)):
        rows = {"A": quotas, "B": shared}[name](grid, m, everything) if name != "D" else ascent(grid, m)
        archive.offer(np.full(len(rows), m), rows)
    return archive.policies(thin(archive.values, DIRECTIONS, POINTS))


def evolved(tune: ExitProblem, start: str, seed: int, *, evaluations: int = EVALUATIONS) -> list[Policy]:
    """The archive from the sweeps or from random policies."""
    archive, g = Archive(CutGrid(tune, CUTS)), np.random.default_rng(seed)
    if start == "sweeps":
        archive.offer(*seeds(archive.grid))
    else:
        random = g.integers(0, archive.grid.off + 1, size=(400, tune.exits))
        archive.offer(g.integers(len(tune.scores), size=400), random)
        archive.offer(np.zeros(tune.exits + 1, dtype=np.int64), fixed(archive.grid))
    archive.evolve(g, evaluations)
    return archive.policies(thin(archive.values, DIRECTIONS, POINTS))


METHODS: dict[str, Callable[[ExitProblem, int], list[Policy]]] = {
    "fixed exits": lambda p, s: [*(Policy.single(p.exits, k) for k in range(p.exits)), Policy.never(p.exits)],
    "A quotas": lambda p, s: sweep(p, "A"),
    "B shared threshold": lambda p, s: sweep(p, "B"),
    "D ascent": lambda p, s: sweep(p, "D"),
    "A+B+D, all subsets": lambda p, s: evolved(p, "sweeps", s, evaluations=0),
    "E from random": lambda p, s: evolved(p, "random", s),
    "E from A+B+D": lambda p, s: evolved(p, "sweeps", s),
    "search_policies": lambda p, s: [
        point.policy for point in search_policies(p, seed=s, max_points=POINTS, cuts=CUTS, evaluations=EVALUATIONS)
    ],
}


def covered(on: ExitProblem, policies: list[Policy]) -> float:
    """Hypervolume of the policies on these samples, up to accuracy 0 at twice the cost of the full network."""
    values = np.array([(point.accuracy, point.mean_cost_ms) for point in (evaluate(on, p) for p in policies)])
    return hypervolume(values[non_dominated(values, DIRECTIONS)], DIRECTIONS, (0.0, 1.2)) / 1.2


def measured(splits: list[Split]) -> Iterator[str]:
    """One line a method: test hypervolume, its gain over quotas on the same seeds, optimism and seconds."""
    rows: dict[str, NDArray[np.float64]] = {}
    for name, method in METHODS.items():
        found = []
        for seed, (tune, test) in enumerate(splits):
            start = time.perf_counter()
            policies = method(tune, seed)
            seconds = time.perf_counter() - start
            found.append((covered(test, policies), covered(tune, policies), seconds))
        rows[name] = np.array(found)
    base = rows["A quotas"]
    for name, row in rows.items():
        gain, optimism = row[:, 0] - base[:, 0], row[:, 1] - row[:, 0]
        yield (
            f"    {name:20s} {row[:, 0].mean():.4f} +- {row[:, 0].std():.4f}  {gain.mean():+.4f} +- {gain.std():.4f}"
            f"  {optimism.mean():+.4f}  {np.median(row[:, 2]):6.3f} s"
        )


def main() -> None:
    """Print one table a data set, then the time of the largest problem promised."""
    for title, make in (("synthetic", synthetic), ("digits", digits)):
        print(f"  {title}: test hypervolume, gain over A, optimism, median seconds ({SEEDS} seeds)")
        for line in measured([make(seed) for seed in range(SEEDS)]):
            print(line)
    splits = [digits(seed) for seed in range(SEEDS)]
    for cuts in (6, 12, 24, 48, 96):
        fronts = [[p.policy for p in search_policies(tune, seed=s, cuts=cuts)] for s, (tune, _) in enumerate(splits)]
        on = np.array([[covered(part, front) for part in both] for front, both in zip(fronts, splits, strict=True)])
        print(f"  digits, {cuts} cuts: test {on[:, 1].mean():.4f}, optimism {(on[:, 0] - on[:, 1]).mean():+.4f}")
    for exits in (8, 28):
        tune, _ = synthetic(0, exits=exits)
        start = time.perf_counter()
        search_policies(tune, seed=0)
        print(f"  search_policies, {exits} exits x 5,000 samples: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()

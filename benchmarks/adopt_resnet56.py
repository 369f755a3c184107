"""A trained ResNet-56 made dynamic: policies on frozen heads, then a short fine-tune with exits, then the stopwatch.

    python benchmarks/adopt_resnet56.py --data DIR [--storage DIR] [--epochs 3] [frozen] [tuned] [speed]

DIR holds `image/cifar10` and `weights/resnet_cifar10` as the shared data has them. The network saw all training images,
so everything but weights is chosen and scored on parts of the 5,000 test images: 1,000 temper the exits, policies are
chosen on 2,000 and scored on the other 2,000. Every step leaves files in the storage and is not done twice; fine-tuning
goes on from its last epoch. Results: `docs/benchmarks.md`.

- `frozen`: a linear (or `mlp`) head after every block, trained on features that are computed once. The policy search
  (exit subset, thresholds, measure, patience) against one threshold for all exits, swept; over 20 cuts.
- `tuned`: exits at a few places, the whole network fine-tuned on the 20,000 training images.
- `speed`: the tuned network at a policy that costs at most 70 of 125.5 million multiply-accumulates, and the original,
  one image at a time in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import dynarch
from dynarch.evaluators.from_scratch import planned_costs
from dynarch.evaluators.frozen_backbone import shadowed
from dynarch.evaluators.pareto import hypervolume
from dynarch.evaluators.policy import ExitProblem, PolicyPoint, evaluate
from dynarch.evaluators.policy_search import search_policies
from dynarch.evaluators.score_table import ScoreTable, calibrate, record, score_table, score_tables
from dynarch.evaluators.splits import Part, Splits
from dynarch.evaluators.training import TrainingRun
from dynarch.hardware.inventory import Costs
from dynarch.spaces.architecture import Architecture
from dynarch.spaces.distillation import DistillationChoice
from dynarch.spaces.families.sample.early_exit import EarlyExitChoice
from dynarch.spaces.policy import Policy
from dynarch.spaces.recipe import RecipeChoice
from dynarch.spaces.signature import Signature
from dynarch.tests.own_models import CifarResNet

SIGNATURE = Signature((3, 32, 32), 10)
MEASURES = ("max_prob", "entropy", "margin")
DIRECTIONS = ("maximize", "minimize")
TARGET_MMACS = 70.0
CUTS = 20
BLOCKS = 27
TUNED_EXITS = (5, 8, 11, 14, 17, 20, 23)
TUNED_RATE = 0.1
RECIPE = RecipeChoice(0.003, 0.01, 0.0, 128, 0, False)


class WithNormalisation(nn.Module):
    """The published network behind the normalisation that it was trained with: takes pixels of 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))
        self.net = CifarResNet(depth)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `b x 10`."""
        made: Tensor = self.net((x - self.mean) / self.std)
        return made


def original(data: Path) -> nn.Module:
    """The trained ResNet-56."""
    file = next((data / "weights" / "resnet_cifar10").glob("resnet56-*.th"))
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model = WithNormalisation(9)
    model.net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()


def splits_of(data: Path, seed: int) -> Splits:
    """Training images; the test images as 1,000 to calibrate on, 2,000 to choose policies on, 2,000 to score on."""
    folder = data / "image" / "cifar10"
    with np.load(folder / "labels.npz") as labels:
        train_y, test_y = labels["train_y"].astype(np.int64), labels["test_y"].astype(np.int64)
    train = torch.cat([_images(folder / f"data_batch_{number}.png") for number in (1, 2)])
    test = _images(folder / "test_first5000.png")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(test)))

    def part(rows: Tensor) -> Part:
        return Part(test[rows], torch.from_numpy(test_y)[rows])

    calibration, tune, certify = torch.split(order, [1000, 2000, 2000])
    return Splits(Part(train, torch.from_numpy(train_y)), part(calibration), part(tune), part(certify), SIGNATURE)


def _images(file: Path) -> Tensor:
    pixels = np.asarray(Image.open(file)).reshape(-1, 32, 32, 3)
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def architecture(model: str, positions: Sequence[int], head: str, *, rate: float, recipe: RecipeChoice) -> Architecture:
    """The adopted network with exits."""
    count = len(positions)
    exits = EarlyExitChoice(tuple(positions), (head,) * count, "equal", MEASURES)
    return Architecture.of(
        backbone={"name": "adopted", "model": model, "rate": rate},
        families={"early_exit": exits.to_mapping()},
        training=recipe.to_mapping(),
    )


def in_mmacs(table: ScoreTable, costs: Costs) -> ExitProblem:
    """What the policy search needs, with work in place of milliseconds."""
    exits = table.predictions.shape[1] - 1
    segment, head = np.zeros(exits + 1), np.zeros(exits)
    for part, macs in zip(costs.parts, costs.macs, strict=True):
        if part.exit is None:
            segment[part.depth] += macs / 1e6
        elif part.kind == "exit":
            head[part.exit] += macs / 1e6
    scores = {name: table.scores[name] for name in MEASURES}
    decide = dict.fromkeys((*MEASURES, "patience"), 0.0)
    return ExitProblem(scores, table.predictions, table.labels, segment, head, decide, patience=True)


def sweep(problem: ExitProblem) -> list[PolicyPoint]:
    """One threshold of the largest probability for all exits, at 200 values and one that everybody is above."""
    thresholds = np.unique([0.0, *np.quantile(problem.scores["max_prob"], np.linspace(0, 1, 200))])
    return [evaluate(problem, Policy("max_prob", (float(each),) * problem.exits)) for each in thresholds]


def rescored(points: Sequence[PolicyPoint], problem: ExitProblem) -> NDArray[np.float64]:
    """Accuracy and work `k x 2` of policies on another split."""
    made = [evaluate(problem, point.policy) for point in points]
    return np.array([[point.accuracy, point.mean_cost_ms] for point in made])


def beaten(curve: NDArray[np.float64], by: NDArray[np.float64], slack: float) -> float:
    """Share of a curve's points for which there is one at most as dear and at least as accurate, less a slack."""
    better = (by[None, :, 0] >= curve[:, None, 0] - slack) & (by[None, :, 1] <= curve[:, None, 1])
    return float(better.any(1).mean())


def compare(tables: dict[str, ScoreTable], costs: Costs) -> dict[str, Any]:
    """The policy search beside the sweep, both chosen on the tune split and scored on the other."""
    tune, certify = in_mmacs(tables["tune"], costs), in_mmacs(tables["certify"], costs)
    started = time.perf_counter()
    found = search_policies(tune, seed=0, max_points=64)
    seconds = time.perf_counter() - started
    swept = sweep(tune)
    ours, theirs = rescored(found, certify), rescored(swept, certify)
    whole = float(certify.correct[:, -1].mean())
    full = float(in_mmacs(tables["certify"], costs).segment_ms.sum())
    reference = (0.5, 1.1 * full)
    return {
        "whole_accuracy": whole,
        "whole_mmacs": full,
        "search_seconds": seconds,
        "hypervolume": {
            "search": hypervolume(ours, DIRECTIONS, reference) / (0.5 * 1.1 * full),
            "sweep": hypervolume(theirs, DIRECTIONS, reference) / (0.5 * 1.1 * full),
        },
        "sweep_beaten_on_chosen": beaten(rescored(swept, tune), rescored(found, tune), 0.0),
        "sweep_beaten": {f"{slack:g}": beaten(theirs, ours, slack) for slack in (0.0, 0.0025, 0.005)},
        "at_work": {
            f"{mmacs:g}": [_best(found, ours, mmacs), _best(swept, theirs, mmacs)] for mmacs in (50, 60, 70, 80, 100)
        },
    }


def _best(points: Sequence[PolicyPoint], scored: NDArray[np.float64], mmacs: float) -> list[float] | None:
    """Accuracy and work, on the split that scores, of the policy that the other split prefers at this work."""
    able = [index for index, point in enumerate(points) if point.mean_cost_ms <= mmacs]
    if not able:
        return None
    chosen = max(able, key=lambda index: points[index].accuracy)
    return [float(value) for value in scored[chosen]]


def trained(
    made: Architecture, splits: Splits, storage: Path, name: str, *, epochs: int, features: Path | None = None
) -> tuple[TrainingRun, float]:
    """The training to its end, or as its checkpoint has it; seconds of training in this process."""
    shadow = None if features is None else lambda network: shadowed(network, splits, features)
    run = TrainingRun(made, splits, signature=SIGNATURE, epochs=epochs, seed=0, shadow=shadow)
    checkpoint = storage / f"{name}.pt"
    if checkpoint.exists():
        run.load(checkpoint)
    started = time.perf_counter()
    while run.epochs_done < epochs:
        run.train_to(run.epochs_done + 1)
        run.save(checkpoint)
        print(f"{name}: epoch {run.epochs_done}, loss {run.train_loss[-1]:.3f}, {time.perf_counter() - started:.0f} s")
    return run, time.perf_counter() - started


def frozen_step(data: Path, storage: Path, model: str) -> dict[str, Any]:
    """A head of one kind after every block; the test images cut in many ways."""
    recipe, splits, made = replace(RECIPE, batch_size=256), splits_of(data, 0), {}
    for head in ("linear", "mlp"):
        member = architecture(model, range(BLOCKS - 1), head, rate=0.0, recipe=recipe)
        started = time.perf_counter()
        run, seconds = trained(member, splits, storage, f"frozen_{head}", epochs=10, features=storage / "features")
        logits, labels = recorded(run)
        costs = planned_costs(member, SIGNATURE)
        rows = [compare(cut(logits, labels, seed), costs) for seed in range(CUTS)]
        accuracy = [float((each.argmax(1) == labels).float().mean()) for each in logits]
        made[head] = {
            "training_seconds": seconds,
            "all_seconds": time.perf_counter() - started,
            "exit_accuracy": accuracy,
            **over_cuts(rows),
        }
        print(json.dumps(made[head]), flush=True)
    return made


def recorded(run: TrainingRun) -> tuple[list[Tensor], Tensor]:
    """Logits of every exit `n x c`, exits untempered, and labels `n`, of all test images."""
    parts = [run.splits.calibrate, run.splits.tune, run.splits.certify]
    columns = zip(*(record(run.trained, part.x).logits for part in parts), strict=True)
    return [torch.cat(column) for column in columns], torch.cat([part.y for part in parts])


def cut(logits: Sequence[Tensor], labels: Tensor, seed: int) -> dict[str, ScoreTable]:
    """Score tables of 2,000 images to choose policies on and 2,000 to score on; 1,000 others temper the exits."""
    order = torch.from_numpy(np.random.default_rng([seed, 56]).permutation(len(labels)))
    calibration, tune, certify = torch.split(order, [1000, 2000, 2000])
    tempered = [each / temperature(each[calibration], labels[calibration]) for each in logits[:-1]]
    return {
        name: score_table([each[rows] for each in (*tempered, logits[-1])], labels[rows])
        for name, rows in (("tune", tune), ("certify", certify))
    }


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The one of 60 temperatures that makes the labels likeliest."""
    tried = np.geomspace(0.2, 10, 60)
    losses = [float(nn.functional.cross_entropy(logits / float(each), labels)) for each in tried]
    return float(tried[int(np.argmin(losses))])


def over_cuts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over cuts of what `compare` says, and how often the search is ahead."""
    search, swept = (np.array([row["hypervolume"][name] for row in rows]) for name in ("search", "sweep"))
    beaten_at = {
        slack: float(np.mean([row["sweep_beaten"][slack] for row in rows])) for slack in rows[0]["sweep_beaten"]
    }
    made: dict[str, Any] = {
        "cuts": len(rows),
        "whole_accuracy": float(np.mean([row["whole_accuracy"] for row in rows])),
        "whole_mmacs": rows[0]["whole_mmacs"],
        "hypervolume_search": [float(search.mean()), float(search.std())],
        "hypervolume_sweep": [float(swept.mean()), float(swept.std())],
        "search_ahead": int((search > swept).sum()),
        "search_seconds": float(np.median([row["search_seconds"] for row in rows])),
        "sweep_beaten_on_chosen": float(np.mean([row["sweep_beaten_on_chosen"] for row in rows])),
        "sweep_beaten": beaten_at,
        "at_work": {},
    }
    for mmacs in rows[0]["at_work"]:
        pairs = np.array([row["at_work"][mmacs] for row in rows if None not in row["at_work"][mmacs]])  # k x 2 x 2
        ahead = pairs[:, 0, 0] - pairs[:, 1, 0]
        mean = pairs.mean(0)
        made["at_work"][mmacs] = {
            "search": mean[0].tolist(),
            "sweep": mean[1].tolist(),
            "gain": [float(ahead.mean()), float(ahead.std())],
        }
    return made


def tuned_step(data: Path, storage: Path, model: str, epochs: int) -> dict[str, Any]:
    """Exits at a few places, everything fine-tuned."""
    recipe = replace(RECIPE, shift=4, flip=True, distillation=DistillationChoice("self", 3.0, 0.5))
    made = architecture(model, TUNED_EXITS, "mlp", rate=TUNED_RATE, recipe=recipe)
    splits = splits_of(data, 0)
    run, seconds = trained(made, splits, storage, "tuned", epochs=epochs)
    logits, labels = recorded(run)
    costs = planned_costs(made, SIGNATURE)
    rows = [compare(cut(logits, labels, seed), costs) for seed in range(CUTS)]
    row = {"training_seconds": seconds, "epochs": epochs, **over_cuts(rows)}
    row["exit_accuracy"] = [float((each.argmax(1) == labels).float().mean()) for each in logits]
    temperatures = calibrate(run.network, splits.calibrate)
    tables = {part: score_tables(run.network, getattr(splits, part)).plain for part in ("tune", "certify")}
    points = search_policies(in_mmacs(tables["tune"], costs), seed=0, max_points=64)
    able = [point for point in points if point.mean_cost_ms <= TARGET_MMACS]
    chosen = max(able, key=lambda point: point.accuracy)
    scored = evaluate(in_mmacs(tables["certify"], costs), chosen.policy)
    row["chosen"] = {"policy": chosen.policy.to_dict(), "accuracy": scored.accuracy, "mmacs": scored.mean_cost_ms}
    row["temperatures"] = list(temperatures)
    return row


def speed_step(
    data: Path, storage: Path, model: str, epochs: int, images: int = 400, rounds: int = 3
) -> dict[str, Any]:
    """The original and the tuned network at its policy, one image at a time, in turns; the best round of each image."""
    torch.set_num_threads(1)
    recipe = replace(RECIPE, shift=4, flip=True, distillation=DistillationChoice("self", 3.0, 0.5))
    made = architecture(model, TUNED_EXITS, "mlp", rate=TUNED_RATE, recipe=recipe)
    tuned = json.loads((storage / "tuned.json").read_text())
    splits = splits_of(data, 0)
    run = TrainingRun(made, splits, signature=SIGNATURE, epochs=epochs, seed=0)
    run.load(storage / "tuned.pt")
    network = run.network.eval()
    for step, value in zip(network.exit_steps, tuned["temperatures"], strict=True):
        step.temperature.fill_(value)
    policy = Policy.from_dict(tuned["chosen"]["policy"])
    plain, part = original(data), splits.certify
    x = [part.x[index : index + 1] for index in range(images)]
    seconds = np.full((2, images), np.inf)
    right = np.zeros((2, images), dtype=bool)
    with torch.inference_mode():
        for _ in range(rounds):
            for index, image in enumerate(x):
                for row in range(2):
                    started = time.perf_counter()
                    logits = plain(image) if row == 0 else network.route(image, policy).logits
                    seconds[row, index] = min(seconds[row, index], time.perf_counter() - started)
                    right[row, index] = int(logits.argmax()) == int(part.y[index])
    mean = 1000 * seconds.mean(1)
    return {
        "images": images,
        "original_ms": float(mean[0]),
        "dynamic_ms": float(mean[1]),
        "faster": float(mean[0] / mean[1]),
        "accuracy_here": [float(value) for value in right.mean(1)],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the steps that are asked for and have left no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--storage", type=Path, default=Path("dynarch-results") / "adopt_resnet56")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("steps", nargs="*", default=["frozen", "tuned", "speed"])
    given = parser.parse_args(arguments)
    storage: Path = given.storage
    storage.mkdir(parents=True, exist_ok=True)
    example = splits_of(given.data, 0).certify.x[:4]
    model = dynarch.adopt(original(given.data), example, folder=storage / "models", name="resnet56").model
    for step in given.steps:
        file = storage / f"{step}.json"
        if not file.exists():
            made = {
                "frozen": lambda: frozen_step(given.data, storage, model),
                "tuned": lambda: tuned_step(given.data, storage, model, given.epochs),
                "speed": lambda: speed_step(given.data, storage, model, given.epochs),
            }[step]()
            file.write_text(json.dumps(made, indent=1))
        print(f"{step}: {file}")
        print(file.read_text())


if __name__ == "__main__":
    main()

"""Is the runner of a bundle as fast as dynarch's routed mode?

    python benchmarks/export.py [--rounds N] [--runtime NAME] [--family NAME] [--json FILE]

Networks of a few families, their exits and gates set so that inputs part, are exported, and route the same inputs in
dynarch and in the runner, in turns of one run: a neighbour on the machine slows both. Of each the least time of all
rounds counts; the ratio is runner by dynarch, so 0.9 is a tenth faster. Numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dynarch.search.bundle.bundle import write_bundle
from dynarch.search.bundle.run import Router
from dynarch.spaces.backbone import AbstractBackbone
from dynarch.spaces.backbones import Recurrent, Residual
from dynarch.spaces.families import BlockSparse, EarlyExit, Jumping, LayerSkipping, MixtureOfExperts
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.network import RoutedNetwork
from dynarch.spaces.probes import policies, sample, settings, trained
from dynarch.spaces.signature import Signature
from dynarch.spaces.space import Space

IMAGE, SEQUENCE = Signature((3, 32, 32), 10), Signature((32, 1 + 6), 10, "sequence")
RESIDUAL = Residual(width=(16,), depth=(1,), stages=3)
CASES: tuple[tuple[AbstractFamily, AbstractBackbone, Signature], ...] = (
    (EarlyExit(heads=("linear",)), RESIDUAL, IMAGE),
    (LayerSkipping(), RESIDUAL, IMAGE),
    (MixtureOfExperts(), RESIDUAL, IMAGE),
    (BlockSparse(), RESIDUAL, IMAGE),
    (Jumping(), Recurrent(width=(32,), chunks=(8,)), SEQUENCE),
)
BATCHES, INPUTS, ROUNDS = (1, 32), 32, 15


def example(family: AbstractFamily, backbone: AbstractBackbone, signature: Signature) -> tuple[RoutedNetwork, Tensor]:
    """A network of the family whose policy parts its inputs."""
    _, architecture = sample(Space((backbone,), (family,)), signature, number=4)[0]
    network, x = trained(architecture, signature, inputs=INPUTS)
    setting = settings(network, x, seed=0)[0]
    with torch.no_grad():
        logits = network.simulate(x, setting=setting).logits
    made = policies(logits, network.exit_steps, family.decisions(), seed=0)[-1]
    return RoutedNetwork(network, replace(made, setting=tuple(setting.items()))), x


def least_seconds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least time of each, over rounds in which each has its turn."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def compare(routed: RoutedNetwork, x: Tensor, folder: Path, batch: int, rounds: int) -> dict[str, float]:
    """Runtime -> seconds for all inputs; `dynarch` is its routed mode."""
    pieces = torch.split(x, batch)
    arrays = [piece.numpy() for piece in pieces]
    runtimes = json.loads((folder / "manifest.json").read_text())["runtimes"]
    routers = {name: Router(folder, name, threads=1) for name in runtimes}

    def run_by(router: Router) -> Callable[[], object]:
        return lambda: [router.route(array) for array in arrays]

    ways: dict[str, Callable[[], object]] = {"dynarch": lambda: [routed.route(piece) for piece in pieces]}
    ways |= {name: run_by(router) for name, router in routers.items()}
    for way in ways.values():
        way()  # programs are loaded
    return least_seconds(ways, rounds)


def main() -> None:
    """Measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--runtime", action="append", help="torch or onnxruntime; default: what can be exported")
    parser.add_argument("--family", action="append", help="of the cases; default: all")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for family, backbone, signature in CASES:
        if asked.family and family.name not in asked.family:
            continue
        routed, x = example(family, backbone, signature)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "bundle"
            write_bundle(routed, folder, runtimes=asked.runtime)
            for batch in BATCHES:
                taken = compare(routed, x, folder, batch, asked.rounds)
                rows.append({"family": family.name, "batch": batch, "inputs": len(x), "seconds": taken})
    table = Table("family", "batch", "dynarch ms an input", "torch", "onnxruntime", title="time, by that of dynarch")
    for row in rows:
        seconds: dict[str, float] = row["seconds"]
        ratios = [f"{seconds[n] / seconds['dynarch']:.2f}" if n in seconds else "-" for n in ("torch", "onnxruntime")]
        table.add_row(str(row["family"]), str(row["batch"]), f"{1e3 * seconds['dynarch'] / INPUTS:.3f}", *ratios)
    Console().print(table)
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

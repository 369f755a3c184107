"""Bundles of small networks, and whether what runs without dynarch does what dynarch does."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynarch.spaces.backbones import BACKBONES
from dynarch.spaces.family import AbstractFamily
from dynarch.spaces.network import RoutedNetwork
from dynarch.spaces.probes import SIGNATURES, policies, sample, settings, trained
from dynarch.spaces.signature import random_inputs
from dynarch.spaces.space import Space
from dynarch.spaces.testing import fits


@cache
def routed_example(family: AbstractFamily) -> tuple[RoutedNetwork, Tensor]:
    """The least network of a family that turned up, under a policy that divides its inputs; 16 of these."""
    backbone = next(made for made in (kind() for kind in BACKBONES) if fits(family, made))
    signature = SIGNATURES[backbone.kinds[0]]
    found = [each for _, each in sample(Space((backbone,), (family,)), signature, number=8)]
    architecture = next(each for each in reversed(found) if family.name in each.families)
    network, x = trained(architecture, signature, inputs=16)
    setting = settings(network, x, seed=0)[0]
    with torch.no_grad():
        logits = network.simulate(x, setting=setting).logits
    tried = policies(logits, network.exit_steps, family.decisions(), seed=0)
    routed = (RoutedNetwork(network, replace(each, setting=tuple(setting.items()))) for each in reversed(tried))
    return max(routed, key=lambda each: len(set(each.route(x).exit_taken.tolist()))), x


def more_inputs(routed: RoutedNetwork, count: int) -> Tensor:
    """Inputs that the network was not taught."""
    return random_inputs(routed.network.signature, count, torch.Generator().manual_seed(7))


def runner_of(folder: Path) -> ModuleType:
    """The runner that lies in a bundle, loaded from there."""
    spec = importlib.util.spec_from_file_location(f"runner_{folder.name}", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_equal(routed: RoutedNetwork, x: Tensor, router: Any, *, batches: Sequence[int], atol: float = 1e-4) -> None:
    """The runner gives the same answers at the same exits."""
    for batch in batches:
        for piece in torch.split(x, batch):
            logits, taken = router.route(piece.numpy())
            expected = routed.route(piece)
            assert taken.tolist() == expected.exit_taken.tolist()
            assert logits.argmax(1).tolist() == expected.logits.argmax(1).tolist()
            np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=0, atol=atol)

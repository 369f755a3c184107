"""Twins: modules that share their weights but not what normalisation has learnt about its inputs."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def twin(module: nn.Module) -> nn.Module:
    """The same tree of modules over the same weights; batch normalisation gets weights and statistics of its own.

    Features of another resolution are distributed otherwise, and one set of statistics fits none of them.

    Source: Zhu, Han, Wu, Zhang, Nie, Lan, Wang, "Dynamic Resolution Network", NeurIPS 2021 (resolution-aware
        normalisation).
    """
    return _twin(module, {})


def _twin(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) not in known:
        made = copy.deepcopy(module) if isinstance(module, _BatchNorm) else copy.copy(module)
        known[id(module)] = made
        if not isinstance(module, _BatchNorm):
            # Tables of weights and of buffers stay shared, so that both see what a move to a device puts there.
            children = {name: None if each is None else _twin(each, known) for name, each in module._modules.items()}
            made.__dict__["_modules"] = children
            for name in [name for name in made.__dict__ if name.endswith("_hooks")]:
                made.__dict__[name] = OrderedDict()
    return known[id(module)]

"""Leaves: the layers of torch that a tape may hold, and the options that make each again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import SpecError

_NAMES = """
Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d Linear Embedding MultiheadAttention GRU LSTM
BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d LayerNorm GroupNorm RMSNorm LocalResponseNorm
ReLU ReLU6 LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Sigmoid LogSigmoid Tanh Hardtanh Hardswish Hardsigmoid Softplus
Softsign Softmax LogSoftmax GLU Dropout Dropout1d Dropout2d AlphaDropout Identity Flatten Upsample PixelShuffle
ChannelShuffle MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d
AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d
ZeroPad2d ReflectionPad2d ReplicationPad2d ConstantPad2d
"""
LEAVES: dict[str, type[nn.Module]] = {name: getattr(nn, name) for name in _NAMES.split()}
# Layers whose initialiser does not say what they are made of.
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
_RENAMED = {("MultiheadAttention", "bias"): "in_proj_bias", ("MultiheadAttention", "add_bias_kv"): "bias_k"}


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is such a layer, and none that was derived from one."""
    return LEAVES.get(type(module).__name__) is type(module)


def leaf_options(module: nn.Module, path: str) -> dict[str, Any]:
    """Plain JSON values that make a layer like this one.

    Raises:
        SpecError: if it has an option that is no such value; the path is that of the layer.
    """
    options = {}
    for name in _option_names(type(module)):
        value = getattr(module, _RENAMED.get((type(module).__name__, name), name), _ABSENT)
        if value is _ABSENT:
            continue
        if name in ("bias", "add_bias_kv") and not isinstance(value, bool):
            value = value is not None
        if isinstance(value, Tensor) or not _plain(value):
            raise SpecError(path, f"has the option {name}={value!r}, which must be a plain value; use a plain layer")
        options[name] = list(value) if isinstance(value, tuple) else value
    return options


def leaf(kind: str, options: Mapping[str, Any], path: str) -> nn.Module:
    """The layer of these options; its weights are as torch makes them on the present default device.

    Raises:
        SpecError: if there is no such layer, or it has no such options.
    """
    if kind not in LEAVES:
        raise SpecError(path, f"must be a layer that can be adopted, but is {kind!r}")
    known = _option_names(LEAVES[kind])
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        if not set(given) <= set(known) or not all(map(_plain, given.values())):
            raise TypeError(f"its options are {', '.join(known)}")
        return LEAVES[kind](**given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError(path, f"cannot be made of {dict(options)} ({error})") from None


_ABSENT = object()


def _option_names(kind: type[nn.Module]) -> tuple[str, ...]:
    if kind in (nn.GRU, nn.LSTM):
        return _RECURRENT if kind is nn.LSTM else _RECURRENT[:-1]
    names = inspect.signature(kind).parameters
    return tuple(name for name in names if name not in ("device", "dtype") and not name.startswith("_"))


def _plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)

"""Operations as numbers: what a part's recorded operations move and compute, by family.

The families are those whose operations cost alike for the same arithmetic and the same memory traffic: a
depthwise convolution needs several times as long for a multiply-accumulate as a matrix product does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch

from .correction import Floats
from .keys import Operation, PartKey

DENSE_CONV: Final = "conv_kxk"
OTHER: Final = "other"
_CONVOLUTIONS: Final = (DENSE_CONV, "conv_1x1", "conv_depthwise", "conv_grouped")
_NAMES: Final[Mapping[str, str]] = {
    "linear": "addmm mm bmm baddbmm linear mkldnn_linear",
    "norm": "native_batch_norm _native_batch_norm_legit_no_training batch_norm native_layer_norm layer_norm"
    " native_group_norm group_norm rms_norm _fused_rms_norm",
    "elementwise": "relu relu6 hardtanh hardswish hardsigmoid gelu silu sigmoid tanh elu leaky_relu prelu mish"
    " softplus add sub rsub mul div neg exp log sqrt rsqrt pow abs clamp where eq ne gt ge lt le logical_not",
    "pool": "max_pool2d max_pool2d_with_indices mkldnn_max_pool2d avg_pool2d adaptive_avg_pool2d"
    " _adaptive_avg_pool2d mean",
    "reduction": "sum amax amin max min argmax argmin any all topk sort cumsum var _softmax _log_softmax"
    " _local_scalar_dense nonzero",
    "movement": "cat stack index_select index index_put index_copy gather scatter masked_select clone copy _to_copy"
    " zeros ones zeros_like ones_like full full_like arange new_zeros fill upsample_nearest2d upsample_bilinear2d"
    " constant_pad_nd native_channel_shuffle channel_shuffle pixel_shuffle embedding flip repeat",
    "view": "view _unsafe_view t transpose permute unsqueeze squeeze expand select slice split split_with_sizes"
    " as_strided unbind chunk detach alias reshape flatten",
}
FAMILIES: Final[tuple[str, ...]] = (*_CONVOLUTIONS, *_NAMES, OTHER)
COLUMNS: Final = ("count", "macs", "bytes")
_FAMILY_OF: Final[Mapping[str, str]] = {name: family for family, text in _NAMES.items() for name in text.split()}


@final
@dataclass(frozen=True)
class Shape:
    """A dense convolution: what is computed, and how large it is.

    Args:
        form: kernel, stride and dilation; only convolutions of one form can stand for each other.
        size: logarithms of input channels, output channels and output pixels.
    """

    form: tuple[int, ...]
    size: tuple[float, ...]


def features(key: PartKey, batch: int) -> Floats:
    """What a part does for a batch: `families x 3`, columns operations, multiply-accumulates, bytes moved."""
    table = np.zeros((len(FAMILIES), len(COLUMNS)))
    for op in key.ops:
        family, (fixed, moved) = family_of(op), _bytes(op)
        table[FAMILIES.index(family)] += (1, batch * _macs(op, family), fixed + batch * moved)
    # Kernels with arithmetic of their own (attention, recurrent layers) are only counted for the whole part.
    counted = sum(_macs(op, family_of(op)) for op in key.ops)
    table[FAMILIES.index(OTHER), 1] += batch * max(key.macs - counted, 0)
    return table


def family_of(op: Operation) -> str:
    """The family of an operation; `other` if none is known for it."""
    name = operator(op)
    if name in ("convolution", "mkldnn_convolution", "_convolution"):
        return _convolution(op) if _described(op) else OTHER
    family = _FAMILY_OF.get(name, OTHER)
    return family if family != "linear" or _described(op) else OTHER


def _described(op: Operation) -> bool:
    """Whether both factors and the result are written down, which tables from elsewhere may leave out."""
    return len(_sizes(op, "in")) >= 2 and len(_sizes(op, "out")) >= 1


def operator(op: Operation) -> str:
    """Its name without namespace, overload and the mark of working in place: `aten.relu_.default` is `relu`."""
    name = str(op["op"])
    return name.split(".")[1 if "." in name else 0].rstrip("_")


def dominant(key: PartKey) -> str:
    """The family with most arithmetic in a part; empty if it has none."""
    macs = features(key, 1)[:, 1]
    return FAMILIES[int(macs.argmax())] if macs.max() > 0 else ""


def dense_convolutions(key: PartKey) -> tuple[Shape, ...]:
    """The dense convolutions of a part with kernels larger than one pixel."""
    return tuple(_shape(op) for op in key.ops if family_of(op) == DENSE_CONV)


def _convolution(op: Operation) -> str:
    weight, groups = _sizes(op, "in")[1], _integers(op, "groups", 1)[0]
    if groups > 1:
        return "conv_depthwise" if weight[1] == 1 else "conv_grouped"
    return DENSE_CONV if max(weight[2:], default=1) > 1 else "conv_1x1"


def _shape(op: Operation) -> Shape:
    weight, made = _sizes(op, "in")[1], _sizes(op, "out")[0]
    form = (*weight[2:], *_integers(op, "stride", 1), *_integers(op, "dilation", 1), *_integers(op, "transposed", 0))
    return Shape(form, tuple(math.log(value) for value in (weight[1], weight[0], math.prod(made[2:]))))


def _macs(op: Operation, family: str) -> int:
    """Of one input; 0 for all families without arithmetic worth counting, and for `other`."""
    if family in _CONVOLUTIONS:
        given, weight = _sizes(op, "in")[:2]
        # A transposed convolution spreads each input over the kernel, an ordinary one gathers each output.
        many = given if _integers(op, "transposed", 0)[0] else _sizes(op, "out")[0]
        return math.prod(many) * math.prod(weight[1:])
    if family == "linear":
        return math.prod(_sizes(op, "out")[0]) * _inner(op)
    return 0


def _inner(op: Operation) -> int:
    """The length of the sums of a matrix product."""
    first = 1 if operator(op) in ("addmm", "baddbmm") else 0  # the term that is added comes before the factors
    return _sizes(op, "in")[first][-1]


def _bytes(op: Operation) -> tuple[int, int]:
    """Bytes that stay with any batch (weights), and bytes of one input's activations, read and written."""
    if family_of(op) == "view":
        return 0, 0
    given, made = _volumes(op, "in"), _volumes(op, "out")
    constant = _constants(op, len(given))
    fixed = sum(volume for index, volume in enumerate(given) if index in constant)
    return fixed, sum(given) - fixed + sum(made)


def _constants(op: Operation, count: int) -> set[int]:
    """Which inputs of an operation are weights."""
    name, family = operator(op), family_of(op)
    if family in _CONVOLUTIONS or family == "norm" or name in ("linear", "mkldnn_linear", "mm"):
        return set(range(1, count))
    return {0, 2} if name == "addmm" else set()


def _volumes(op: Operation, side: str) -> list[int]:
    return [math.prod(tensor[1]) * _item_bytes(str(tensor[0])) for tensor in _tensors(op, side)]


def _item_bytes(dtype: str) -> int:
    known = getattr(torch, dtype, None)
    return int(known.itemsize) if isinstance(known, torch.dtype) else 4


def _sizes(op: Operation, side: str) -> list[Sequence[int]]:
    return [tensor[1] for tensor in _tensors(op, side)]


def _tensors(op: Operation, side: str) -> Sequence[tuple[str, Sequence[int]]]:
    tensors = op.get(side, ())
    assert isinstance(tensors, list | tuple)
    return tensors


def _integers(op: Operation, name: str, default: int) -> tuple[int, ...]:
    arguments = op.get("args", {})
    assert isinstance(arguments, Mapping)
    value = arguments.get(name, default)
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)

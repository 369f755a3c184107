"""Calls: the operations that a tape may hold, by name. None of them reads, writes or runs anything but tensors.

`torch.relu`, `functional.relu`, `method.relu` and `aten.relu.default` are the same operation by other ways; one list of
plain names says which may be called, with or without the underscore that stands for working in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import SpecError

_OPERATIONS = frozenset(
    """
    relu relu6 leaky_relu prelu elu selu celu gelu silu mish sigmoid logsigmoid log_sigmoid tanh tanhshrink hardtanh
    hardswish hardsigmoid softplus softsign softmax log_softmax softmin glu threshold
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d linear bilinear embedding scaled_dot_product_attention
    batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm normalize
    dropout dropout1d dropout2d alpha_dropout feature_dropout
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d lp_pool2d
    pad constant_pad_nd interpolate upsample_nearest2d upsample_bilinear2d pixel_shuffle pixel_unshuffle channel_shuffle
    add sub rsub mul div true_divide floor_divide remainder pow neg abs exp expm1 log log1p log2 sqrt rsqrt square
    reciprocal sign sin cos erf floor ceil round clamp clamp_min clamp_max maximum minimum lerp addcmul addcdiv
    eq ne lt le gt ge logical_not logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or isnan where
    masked_fill matmul mm bmm mv dot addmm baddbmm einsum tensordot outer
    sum mean var std norm amax amin max min argmax argmin prod cumsum any all logsumexp topk sort
    cat concat stack chunk split split_with_sizes tensor_split unbind narrow select slice getitem index index_select
    gather take_along_dim
    view view_as reshape reshape_as flatten unflatten squeeze unsqueeze transpose permute movedim swapaxes t expand
    expand_as broadcast_to repeat repeat_interleave tile roll flip triu tril diagonal unfold fold as_strided
    contiguous clone detach alias to type_as float double half bool int long type size dim numel ndimension
    zeros ones full arange linspace zeros_like ones_like full_like new_zeros new_ones new_full empty_like one_hot
    sym_size scalar_tensor lift_fresh_copy
    """.split()  # noqa: SIM905
)
_OPERATORS = tuple(
    """
    add sub mul truediv floordiv mod pow neg pos abs matmul and_ or_ xor invert eq ne lt le gt ge getitem
    iadd isub imul itruediv
    """.split()  # noqa: SIM905
)
_SPACES: dict[str, Any] = {"torch": torch, "functional": functional, "method": Tensor}
ATTRIBUTES = ("shape", "T", "mT", "ndim", "dtype", "device")
GETATTR = "builtin.getattr"
# Where a call says whether it is in training: by name, or at a place.
TRAINING: dict[str, int] = {"aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.feature_dropout.default": 2}


def plain(name: str) -> str:
    """The operation that a call is: `method.relu_` and `aten.relu.default` are `relu`."""
    return name.split(".")[1].rstrip("_")


def _named() -> dict[Any, str]:
    found: dict[Any, str] = {getattr(operator, each): f"operator.{each}" for each in _OPERATORS}
    for space in ("functional", "torch"):  # the same function may be in both: the last one names it
        for each in (*sorted(_OPERATIONS), *(f"{each}_" for each in sorted(_OPERATIONS))):
            function = getattr(_SPACES[space], each, None)
            if callable(function):
                found[function] = f"{space}.{each}"
    found[torch.sym_sum] = "torch.sym_sum"
    found[getattr] = GETATTR
    return found


_NAMES = _named()


def call_name(target: object) -> str | None:
    """The name of a function that a trace calls; None: no tape may hold it."""
    if isinstance(target, torch._ops.OpOverload):
        name = f"aten.{target._schema.name.removeprefix('aten::')}.{target._overloadname}"
        return name if target.namespace == "aten" and plain(name) in _OPERATIONS else None
    return _NAMES.get(target)


def method_name(method: str) -> str | None:
    """The name of a method of a tensor; None: no tape may hold it."""
    return f"method.{method}" if method.rstrip("_") in _OPERATIONS and hasattr(Tensor, method) else None


def call_of(name: str, path: str) -> Callable[..., Any]:
    """What a name stands for.

    Raises:
        SpecError: if no tape may hold it.
    """
    space, _, rest = name.partition(".")
    found: Any = None
    if name == GETATTR:
        found = _attribute
    elif name == "torch.sym_sum":
        found = sum
    elif space == "operator" and rest in _OPERATORS:
        found = getattr(operator, rest)
    elif space in _SPACES and rest.rstrip("_") in _OPERATIONS:
        found = getattr(_SPACES[space], rest, None)
    elif space == "aten" and plain(name) in _OPERATIONS:
        packet, _, overload = rest.partition(".")
        found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not callable(found):
        raise SpecError(path, f"must call an operation that can be adopted, but calls {name!r}")
    return found  # type: ignore[no-any-return]


def _attribute(value: Any, name: str) -> Any:
    if name not in ATTRIBUTES:
        raise SpecError("model", f"may read {', '.join(ATTRIBUTES)} of a tensor, but reads {name!r}")
    return getattr(value, name)

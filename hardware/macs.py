"""Multiply-accumulates of single aten operations, and which operations have none worth counting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

# Data movement, normalisation, pooling, selection and random numbers: their time is memory and
# dispatch. Endings such as `_` (in place) are left out.
_MOVING = frozenset(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _batch_norm_no_update _batch_norm_with_update
    _local_scalar_dense _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training
    _safe_softmax _softmax _to_copy _unsafe_view arange bernoulli bincount bucketize cat channel_shuffle
    clone col2im constant_pad_nd copy cudnn_batch_norm cumprod cumsum embedding embedding_renorm equal
    exponential eye fill flip full full_like gather histc im2col index index_add index_copy index_fill
    index_put index_select isin kthvalue lift linspace masked_scatter masked_select median mode multinomial
    native_batch_norm native_channel_shuffle native_dropout native_group_norm native_layer_norm new_full
    new_ones new_zeros nonzero nonzero_static normal one_hot ones ones_like pixel_shuffle pixel_unshuffle
    put rand rand_like randint randint_like randn randn_like random randperm repeat repeat_interleave
    rms_norm roll rot90 scalar_tensor scatter scatter_add scatter_reduce searchsorted sort split_copy
    split_with_sizes split_with_sizes_copy stack take topk tril tril_indices triu triu_indices unfold_copy
    uniform unique_dim unsafe_split unsafe_split_with_sizes zero zeros zeros_like _unique2
    unique_consecutive transpose t squeeze unsqueeze as_strided swapaxes swapdims max_pool2d mkldnn_max_pool2d
    sym_size where
    """.split()  # noqa: SIM905
)
_MOVING_PREFIXES = (
    "adaptive_",
    "avg_pool",
    "max_pool",
    "fractional_max_pool",
    "upsample_",
    "_upsample_",
    "reflection_pad",
    "replication_pad",
    "grid_sampler",
)


def macs_of(func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object], out: object) -> int | None:
    """Multiply-accumulates of one executed operation.

    Returns:
        The count; 0 for views, elementwise operations, reductions and data movement, whose time is not
        arithmetic; None for an operation that is not known, so that the caller can name it.
    """
    formula = flop_registry.get(func.overloadpacket)
    if formula is not None:
        return int(formula(*args, **kwargs, out_val=out)) // 2
    name = func.overloadpacket.__name__
    own = _FORMULAS.get(name)
    if own is not None:
        return own(args, out)
    tags = func.tags
    if func.is_view or torch.Tag.pointwise in tags or torch.Tag.reduction in tags:
        return 0
    name = name.rstrip("_")
    return 0 if name in _MOVING or name.startswith(_MOVING_PREFIXES) else None


def _shape(value: object) -> tuple[int, ...]:
    assert isinstance(value, Tensor)  # the schema of the operation says so
    return tuple(value.shape)


def _attention(args: Sequence[object], _: object) -> int:
    *outer, queries, width = _shape(args[0])  # ... x q x d
    keys, value_width = _shape(args[1])[-2], _shape(args[2])[-1]
    return _product(outer) * queries * keys * (width + value_width)


def _packed_attention(args: Sequence[object], _: object) -> int:
    # query, key, value `b x t x d`, d, heads, qkv weight, qkv bias, projection weight, ...
    (batch, queries, width), keys = _shape(args[0]), _shape(args[1])[1]
    projections = batch * queries * (_numel(args[5]) + _numel(args[7]))
    return projections + 2 * batch * queries * keys * width


def _encoder_layer(args: Sequence[object], _: object) -> int:
    # source `b x t x d`, d, heads, qkv weight, bias, projection weight, bias, ..., both feed-forward weights
    batch, tokens, width = _shape(args[0])
    weights = sum(_numel(args[index]) for index in (3, 5, 14, 16))
    return batch * tokens * weights + 2 * batch * tokens * tokens * width


def _rnn_layer(args: Sequence[object], _: object) -> int:
    # input `t x b x i`, input weights, recurrent weights
    steps, batch, _width = _shape(args[0])
    return steps * batch * (_numel(args[1]) + _numel(args[2]))


def _vector_product(args: Sequence[object], _: object) -> int:
    return _numel(args[0])


def _matrix_vector_sum(args: Sequence[object], _: object) -> int:
    return _numel(args[1])


def _linear(args: Sequence[object], out: object) -> int:
    return _numel(out) * _shape(args[1])[-1]


def _numel(value: object) -> int:
    return _product(_shape(value))


def _product(numbers: Sequence[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


# Kernels that torch's own counter leaves at zero.
_FORMULAS: Mapping[str, Callable[[Sequence[object], object], int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_native_multi_head_attention": _packed_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "mkldnn_rnn_layer": _rnn_layer,
    "dot": _vector_product,
    "mv": _vector_product,
    "addmv": _matrix_vector_sum,
    "linear": _linear,
    "mkldnn_linear": _linear,
}

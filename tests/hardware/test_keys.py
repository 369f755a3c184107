"""Part keys: what is executed decides, names and weights do not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynarch.hardware.keys import PartKey, concatenate, part_key
from dynarch.spaces.errors import ShapeError


def _conv(stride: int = 1, width: int = 8) -> nn.Sequential:
    conv = nn.Conv2d(3, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def _key(module: Callable[..., object], *shape: int, kind: str = "segment") -> PartKey:
    return part_key(module, (torch.randn(*shape),), kind=kind)


def test_equal_structure_has_an_equal_key_whatever_the_weights() -> None:
    torch.manual_seed(0)
    first, second = _key(_conv(), 1, 3, 8, 8), _key(_conv(), 1, 3, 8, 8)
    assert first == second
    assert first.ops == second.ops
    assert len(first.hash) == 24


class Renamed(nn.Module):
    """The block of `_conv` under other names, through the functional interface."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.scale = nn.BatchNorm2d(8, eps=1e-3, momentum=0.9)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.scale(self.projection(x)))


def test_names_and_neutral_constants_do_not_matter() -> None:
    assert _key(Renamed(), 1, 3, 8, 8) == _key(_conv(), 1, 3, 8, 8)


def test_thresholds_do_not_matter() -> None:
    assert _key(lambda x: x > 0.5, 1, 4) == _key(lambda x: x > 0.9, 1, 4)
    assert _key(lambda x: x * 2, 1, 4) == _key(lambda x: x * 3, 1, 4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Conv2d(4, 4, 3, stride=1, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)),
        (nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=0)),
        (nn.Conv2d(4, 4, 3, padding=2), nn.Conv2d(4, 4, 3, padding=2, dilation=2)),
        (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4)),
        (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, bias=False)),
        (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3)),
        (nn.Softmax(dim=1), nn.Softmax(dim=2)),
        (nn.MaxPool2d(2), nn.MaxPool2d(3, 2)),
        (nn.ReLU(), nn.GELU()),
        (nn.GELU(), nn.GELU(approximate="tanh")),
        (nn.Identity(), nn.ReLU()),
    ],
)
def test_what_changes_the_cost_changes_the_key(first: nn.Module, second: nn.Module) -> None:
    assert _key(first, 1, 4, 8, 8) != _key(second, 1, 4, 8, 8)


def test_powers_differ_by_exponent() -> None:
    assert _key(lambda x: x**2.0, 1, 4) != _key(lambda x: x**2.5, 1, 4)


def test_shape_dtype_layout_and_kind_change_the_key() -> None:
    module, x = nn.ReLU(), torch.randn(1, 4, 8, 8)
    keys = [
        part_key(module, (x,), kind="segment"),
        part_key(module, (x,), kind="exit"),
        part_key(module, (x[:, :, :4].contiguous(),), kind="segment"),
        part_key(module, (x[:, :, :4],), kind="segment"),  # the same shape, read in strides
        part_key(module, (x.to(memory_format=torch.channels_last),), kind="segment"),
        part_key(module, (x.double(),), kind="segment"),
    ]
    assert len({key.hash for key in keys}) == len(keys)


def test_batch_is_no_part_of_the_key() -> None:
    assert _key(_conv(), 7, 3, 8, 8) == _key(_conv(), 1, 3, 8, 8)


def test_a_batch_without_examples_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one example"):
        _key(_conv(), 0, 3, 8, 8)


def test_inference_mode_and_training_mode_change_nothing() -> None:
    module = _conv().train()
    running = module.state_dict()["1.running_mean"].clone()
    plain = _key(module, 1, 3, 8, 8)
    with torch.inference_mode():
        assert _key(module, 1, 3, 8, 8) == plain
    assert all(part.training for part in module.modules())
    assert torch.equal(module.state_dict()["1.running_mean"], running)


def test_a_method_of_a_module_counts_as_the_module() -> None:
    module = _conv().train()
    assert _key(module.forward, 1, 3, 8, 8) == _key(module, 1, 3, 8, 8)
    assert module.training


def test_meta_tensors_give_the_same_key() -> None:
    block = nn.Sequential(_conv(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    real = _key(block, 1, 3, 8, 8)
    assert part_key(block.to("meta"), (torch.empty(1, 3, 8, 8, device="meta"),), kind="segment") == real


BLOCKS: tuple[Callable[[], nn.Module], ...] = (
    lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    lambda: nn.Conv2d(4, 4, 1),
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Hardswish()),
    lambda: nn.GroupNorm(2, 4),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(range(len(BLOCKS))), min_size=1, max_size=5))
def test_a_segment_is_the_concatenation_of_its_blocks(chosen: list[int]) -> None:
    blocks = [BLOCKS[index]().eval() for index in chosen]
    x = torch.randn(2, 4, 6, 6)
    keys = []
    with torch.no_grad():
        features = x
        for block in blocks:
            keys.append(part_key(block, (features,), kind="block"))
            features = block(features.clone())
    whole = part_key(nn.Sequential(*blocks), (x,), kind="segment")
    joined = concatenate(keys, "segment")
    assert joined == whole
    assert (joined.macs, joined.bytes_weights) == (whole.macs, whole.bytes_weights)


def test_order_of_blocks_matters() -> None:
    a, b = _key(nn.ReLU(), 1, 4), _key(nn.Sigmoid(), 1, 4)
    assert concatenate([a, b], "segment") != concatenate([b, a], "segment")


def test_macs_and_weights_by_hand() -> None:
    # Convolution 3 -> 8 channels, 3 x 3, stride 2 on 8 x 8: 4 * 4 outputs * 8 * 27 = 3456.
    # Linear 8 -> 4: 32. Weights: 216 + (4 * 8 of the batch norm) + 32 + 4 = 284 floats.
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    key = _key(nn.Sequential(_conv(stride=2), head), 1, 3, 8, 8)
    assert key.macs == 3456 + 32
    assert key.bytes_weights == 4 * 284
    assert key.uncounted == ()


def test_of_a_sliced_weight_only_the_slice_is_read() -> None:
    weight = torch.randn(16, 8)
    key = _key(lambda x: nn.functional.linear(x, weight[:4]), 1, 8)
    assert key.bytes_weights == 4 * 8 * 4
    assert key.macs == 4 * 8


def test_a_weight_used_twice_is_read_once_and_multiplied_twice() -> None:
    linear = nn.Linear(8, 8, bias=False)
    key = _key(nn.Sequential(linear, linear), 1, 8)
    assert key.bytes_weights == 8 * 8 * 4
    assert key.macs == 2 * 64


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        # Projections 3 * d^2 + d^2, scores and values 2 * t * d, for each of t = 5 tokens of d = 16.
        (nn.MultiheadAttention(16, 2, batch_first=True), (1, 5, 16), 5 * (4 * 256 + 2 * 5 * 16)),
        # The same and two feed-forward products of 16 x 32.
        (
            nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True),
            (1, 5, 16),
            5 * (4 * 256 + 2 * 5 * 16 + 2 * 16 * 32),
        ),
        # Four gates, input 4 and state 3, for each of 5 steps.
        (nn.LSTM(4, 3, batch_first=True), (1, 5, 4), 5 * 4 * 3 * (4 + 3)),
        # Three gates.
        (nn.GRU(4, 3, batch_first=True), (1, 5, 4), 5 * 3 * 3 * (4 + 3)),
    ],
)
def test_macs_of_fused_kernels_by_hand(module: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    def call(x: Tensor) -> object:
        return module(x, x, x, need_weights=False) if isinstance(module, nn.MultiheadAttention) else module(x)

    module.eval()
    key = _key(call, *shape)
    assert key.macs == macs
    assert key.uncounted == ()


def test_macs_of_attention_by_hand() -> None:
    # 2 heads, 5 queries, 5 keys, width 8: scores and values, 2 * 2 * 5 * 5 * 8.
    x = torch.randn(1, 2, 5, 8)
    key = part_key(nn.functional.scaled_dot_product_attention, (x, x, x), kind="segment")
    assert key.macs == 800
    assert key.uncounted == ()


def test_macs_agree_with_the_counter_of_torch() -> None:
    block = nn.Sequential(_conv(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(4, 4, 3, groups=2)).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        block(x)
    assert part_key(block, (x,), kind="segment").macs == counter.get_total_flops() / 2


def test_an_operation_without_a_formula_is_named() -> None:
    key = _key(torch.linalg.inv, 1, 3, 3)
    assert "aten.linalg_inv_ex.default" in key.uncounted
    assert concatenate([key, key], "segment").uncounted == key.uncounted


def test_routing_operations_are_known() -> None:
    def route(x: Tensor) -> Tensor:
        confidence = x.softmax(1).max(1).values
        stay = (confidence > 2).logical_not().nonzero().flatten()
        answers = torch.empty_like(x)
        answers[stay] = x.index_select(0, stay)
        return answers if bool(confidence.item() > 2) else x.topk(2).values

    assert _key(route, 1, 4).uncounted == ()


def test_plain_data_is_json() -> None:
    key = _key(_conv(), 1, 3, 8, 8)
    assert json.loads(json.dumps(key.to_dict()))["hash"] == key.hash

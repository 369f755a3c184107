from __future__ import annotations

import torch

from dynarch.spaces.backbone import Signature, outline
from dynarch.spaces.backbones.multi_scale_dense import Coarsest, Layout, MultiScaleDense, MultiScaleDenseChoice

SIGNATURE = Signature((1, 8, 8), 4)


def test_maps_lie_one_after_the_other_the_coarsest_last() -> None:
    layout = Layout(((2, 2, 2), (1, 1, 1)), spare=1)
    row = torch.arange(10.0)[None]
    fine, coarse = layout.unpack(row)
    assert fine.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert fine[0, 1].tolist() == [[5, 6], [7, 8]]
    assert coarse.flatten().tolist() == [9]
    assert layout.pack([fine, coarse]).tolist() == row.tolist()  # the spare number is a zero
    assert layout.pack([fine[:, :1], fine[:, 1:], coarse]).tolist() == row.tolist(), "pieces of a map join as channels"


def test_weights_and_shapes_are_those_worked_out_by_hand() -> None:
    # Growth 2, two scales: 4 channels on 8 x 8 and 8 on 4 x 4. Stem: 9 * 4 + 8 and 4 * 8 * 9 + 16 weights.
    # Block 0 adds 4 channels to the coarse map, two from each, and ends the fine one: from 8 channels 8 * 8 + 16 and
    # 8 * 2 * 9 + 4; from 4 fine ones 4 * 4 + 8 and 4 * 2 * 9 + 4. Block 1 halves 12 channels, 12 * 6 + 12, and adds 4:
    # 6 * 6 + 12 and 6 * 4 * 9 + 8. The head reads 10: 10 * 4 + 4.
    by_hand = (44 + 304) + (80 + 148 + 24 + 76) + (84 + 48 + 224) + 44
    built = MultiScaleDense.build(MultiScaleDenseChoice(2, (1, 1)), SIGNATURE).eval()
    assert sum(weight.numel() for weight in built.parameters()) == by_hand == 1076
    made = outline(built, SIGNATURE)
    assert made.stem_shape == (4 * 64 + 8 * 16,)
    assert made.feature_shapes == ((12 * 16,), (10 * 16,))
    assert made.view_shapes == ((12, 4, 4), (10, 4, 4))
    assert made.peek_shapes == ((8, 4, 4), (12, 4, 4))
    # On 16 places 8 * 8 + 8 * 2 * 9 of its own; of the fine map 4 * 4 on 64 places and 4 * 2 * 9 on 16.
    assert made.block_macs[0] == 16 * (64 + 144) + 64 * 16 + 16 * 72
    assert made.block_macs[1] == 16 * (72 + 36 + 216)


def test_a_row_tells_its_layout_even_where_two_would_be_equally_long() -> None:
    # Growth 2: stem 384; block 0 + 2 * 64 + 4 * 16 = 576; block 1 adds 64 and ends 8 * 64: 16 channels on 4 x 4, 256;
    # the second stage halves to 8 and adds 4 a block: 192, 256 (taken, so one longer), 320, 384 (taken again).
    built = MultiScaleDense.build(MultiScaleDenseChoice(2, (2, 4)), SIGNATURE).eval()
    made = outline(built, SIGNATURE)
    assert made.feature_shapes == ((576,), (256,), (192,), (257,), (320,), (385,))
    assert [shape[0] for shape in made.view_shapes] == [12, 16, 12, 16, 20, 24]


def test_the_view_is_the_coarsest_map() -> None:
    layout = Layout(((1, 4, 4), (3, 2, 2)))
    fine, coarse = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 2, 2)
    assert torch.equal(Coarsest([layout])(layout.pack([fine, coarse])), coarse)


def test_odd_sides_are_halved_upwards() -> None:
    signature = Signature((1, 7, 5), 4)
    built = MultiScaleDense.build(MultiScaleDenseChoice(2, (1, 1, 1)), signature).eval()
    assert outline(built, signature).peek_shapes[0][1:] == (2, 2)  # 7 x 5, 4 x 3, 2 x 2

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.backbone import Signature, outline
from dynarch.spaces.backbones import TextTransformer, VisionTransformer
from dynarch.spaces.backbones.text_transformer import TextTransformerChoice
from dynarch.spaces.backbones.vision_transformer import PatchEmbedding, VisionTransformerChoice
from dynarch.spaces.errors import SpecError
from dynarch.spaces.tokens import TokenStem, TokenView, TransformerBlock, with_mass

WIDTH, HEADS, HIDDEN = 8, 2, 12


def block(*, weighted: bool = True) -> TransformerBlock:
    torch.manual_seed(0)
    return TransformerBlock(WIDTH, HEADS, HIDDEN, weighted=weighted).eval()


def tokens(*mass: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(2, len(mass), WIDTH, generator=generator)
    return with_mass(torch.tensor([mass, mass]), values)


@torch.no_grad()
def test_a_token_without_mass_influences_nothing() -> None:
    x = tokens(1, 1, 0)
    other = x.clone()
    other[:, 2, 1:] = 100 * torch.randn(2, WIDTH)
    for query in ("mean", "class"):
        view = TokenView(query)
        assert torch.equal(view(block()(x)), view(block()(other)))
        torch.testing.assert_close(view(block()(x)), view(block()(x[:, :2])))
    assert torch.equal(block()(x)[..., 0], x[..., 0]), "masses are handed on"


@torch.no_grad()
def test_a_token_of_mass_two_is_two_tokens() -> None:
    twice, once = tokens(2, 1, 1), tokens(1, 1, 1)
    twins = torch.cat([once[:, :1], once], 1)
    torch.testing.assert_close(block()(twice)[:, 1:], block()(twins)[:, 2:])
    torch.testing.assert_close(TokenView("mean")(block()(twice)), TokenView("mean")(block()(twins)))


@torch.no_grad()
def test_where_all_masses_are_one_nobody_looks_at_them() -> None:
    torch.testing.assert_close(block(weighted=True)(tokens(1, 1, 1)), block(weighted=False)(tokens(1, 1, 1)))


@torch.no_grad()
def test_an_input_without_any_token_gives_numbers() -> None:
    made = TokenView("mean")(block()(tokens(0, 0)))
    assert torch.isfinite(made).all()
    assert not made.any()


@torch.no_grad()
def test_attention_is_that_of_the_formula() -> None:
    """Softmax of q k / sqrt(4) over the keys, head by head, then the values; masses add their logarithm."""
    made, x = block(), tokens(1, 3)
    values = x[..., 1:]
    q, k, v = made.qkv(made.norm1(values)).split(WIDTH, 2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        logits = q[:, :, head] @ k[:, :, head].transpose(1, 2) / 2
        share = logits.exp() * torch.tensor([1.0, 3.0])
        heads.append(share / share.sum(2, keepdim=True) @ v[:, :, head])
    expected = values + made.out(torch.cat(heads, 2))
    torch.testing.assert_close(made.attend(x, weighted=True)[..., 1:], expected)


@torch.no_grad()
def test_a_narrow_block_has_the_first_hidden_units() -> None:
    whole = block()
    narrow = whole.narrowed(0.5)
    zeroed = block()
    zeroed.project.weight[:, HIDDEN // 2 :] = 0
    torch.testing.assert_close(narrow(tokens(1, 1, 1)), zeroed(tokens(1, 1, 1)))
    torch.testing.assert_close(whole.narrowed(1.0)(tokens(1, 1, 1)), whole(tokens(1, 1, 1)))


@torch.no_grad()
def test_squares_become_tokens_row_by_row() -> None:
    embed = PatchEmbedding(1, 1, 2)
    nn.init.ones_(embed.project.weight)
    nn.init.zeros_(embed.project.bias)  # type: ignore[arg-type]
    image = torch.arange(12.0).view(1, 1, 3, 4)  # padded to 4 x 4
    values, mass = embed(image)
    assert values.flatten().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 8 + 9, 10 + 11]
    assert mass.tolist() == [[1, 1, 1, 1]]


def test_a_class_token_stands_in_front() -> None:
    class Given(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[..., 1:], x[..., 0]

    stem = TokenStem(Given(), tokens=3, width=WIDTH, query="class")
    x = tokens(1, 1, 0)
    made = stem(x)
    assert made.shape == (2, 4, 1 + WIDTH)
    assert made[0, :, 0].tolist() == [1, 1, 1, 0]
    assert stem.query is not None
    assert torch.equal(made[1, 0, 1:], stem.query[0, 0])
    assert torch.equal(made[:, 1:, 1:], x[..., 1:] + stem.positions)


def test_weights_and_work_are_those_worked_out_by_hand() -> None:
    # Width 8, 2 x 2 squares of 1 x 8 x 8: 16 tokens. Embedding 4 * 8 + 8, positions 16 * 8; block: norms 4 * 8, qkv
    # 8 * 24 + 24, out 72, perceptron 8 * 16 + 16 and 16 * 8 + 8; head 8 * 4 + 4.
    signature = Signature((1, 8, 8), 4)
    built = VisionTransformer.build(VisionTransformerChoice(2, 8, 1, 2, 2, "mean"), signature).eval()
    by_hand = 40 + 128 + (32 + 216 + 72 + 144 + 136) + 36
    assert sum(weight.numel() for weight in built.parameters()) == by_hand == 804
    made = outline(built, signature)
    assert made.feature_shapes == ((16, 9),)
    assert made.view_shapes == ((8,),)
    # Of each token qkv, out and perceptron; of each pair of tokens 8 for its logits and 8 for its values.
    assert made.block_macs == (16 * (192 + 64 + 128 + 128) + 16 * 16 * 16,)


@torch.no_grad()
def test_padding_of_a_text_influences_nothing() -> None:
    """A text is what it is in a longer frame: positions are those of the words."""
    short, long = Signature((4,), 3, "text", 9), Signature((7,), 3, "text", 9)
    for query in ("mean", "class"):
        choice = TextTransformerChoice(8, 2, 2, 2, query)
        torch.manual_seed(0)
        wide = TextTransformer.build(choice, long).eval()
        narrow = TextTransformer.build(choice, short).eval()
        state = wide.state_dict()
        state["stem.positions"] = state["stem.positions"][:4]
        narrow.load_state_dict(state)
        text = torch.tensor([[3.0, 5.0, 8.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4])
        padded = torch.cat([text, torch.zeros(3, 3)], 1)
        torch.testing.assert_close(narrow(text), wide(padded))
        assert torch.isfinite(wide(padded)).all()


def test_heads_share_the_width() -> None:
    for make in (
        lambda: VisionTransformer(width=(8, 12), heads=(2, 8)),
        lambda: VisionTransformerChoice(2, 12, 1, 8, 2, "mean"),
        lambda: TextTransformer(width=(8, 12), heads=(2, 8)),
        lambda: TextTransformerChoice(12, 1, 8, 2, "mean"),
    ):
        with pytest.raises(SpecError, match="must divide") as caught:
            make()
        assert caught.value.path.partition(".")[0] == "heads"

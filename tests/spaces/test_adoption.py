"""Adoption: what becomes of models that users write, and what is said of those that cannot be adopted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dynarch.spaces.adopted import shelf
from dynarch.spaces.adoption import adopt
from dynarch.spaces.backbone import Backbone, Outline, outline
from dynarch.spaces.backbones.adopted import Adopted, AdoptedChoice
from dynarch.spaces.errors import SpecError, UnknownNameError
from dynarch.spaces.signature import Signature
from dynarch.tests import own_models
from dynarch.tests.own_models import CifarResNet, PreActivationNet, TextEncoder, TorchvisionResNet, settled

SMALL = Signature((1, 8, 8), 4)


def images(count: int = 5, channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def built(adopted: Adopted, signature: Signature, rate: float = 0.0) -> tuple[Backbone, Outline]:
    made = adopted.build(AdoptedChoice(adopted.model, rate), signature).eval()
    return made, outline(made, signature)


def document(adopted: Adopted) -> Any:
    return shelf.load(adopted.model)[0].document


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return settled(TorchvisionResNet(), images(16))


@torch.no_grad()
def test_chain_gives_what_the_model_gives_and_leaves_it_alone(resnet: nn.Module) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    adopted = adopt(resnet.train(), images())
    chain, _ = built(adopted, SMALL)
    x = images(7) + 1
    assert torch.equal(chain(x), resnet.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    for weight in chain.parameters():
        weight.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())


def test_residual_blocks_are_found_and_known_to_be_skippable(resnet: nn.Module) -> None:
    _, shapes = built(adopt(resnet, images()), SMALL)
    assert document(adopt(resnet, images()))["names"] == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    assert shapes.stages == (2, 2)
    assert shapes.feature_shapes == ((4, 8, 8), (4, 8, 8), (8, 4, 4), (8, 4, 4))
    assert shapes.residual == (0, 1, 3)  # the third halves the sides
    assert shapes.block_macs[0] == 2 * 4 * 4 * 9 * 64  # two 3 x 3 convolutions of 4 channels on 8 x 8


def test_smaller_images_are_taken_where_the_model_takes_them(resnet: nn.Module) -> None:
    assert document(adopt(resnet, images()))["least_side"] == 2  # a quarter; its mean is over whatever there is
    cifar = settled(CifarResNet(1), images(4, 3, 32))
    assert document(adopt(cifar, images(4, 3, 32)))["least_side"] is None, "its last pooling was traced as 8 x 8"


def test_layers_in_a_row_are_blocks_that_cannot_be_skipped() -> None:
    torch.manual_seed(0)
    model = settled(own_models.plain(), images())
    made = document(adopt(model, images()))
    # One layer with weights each, and what follows it; pooling goes with the classifier.
    assert [made["names"], made["stages"], made["skippable"]] == [["2", "6"], [2], [False, False]]
    _, shapes = built(adopt(model, images()), SMALL)
    assert shapes.feature_shapes == ((6, 4, 4), (6, 4, 4))
    assert shapes.residual == (), "equal shapes are not enough"


def test_shortcuts_without_weights_and_functions_are_kept() -> None:
    torch.manual_seed(0)
    x = images(4, 3, 32)
    model = settled(CifarResNet(2), x)
    made = document(adopt(model, x))
    assert made["names"] == [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in (0, 1)]
    assert made["skippable"] == [True, True, False, True, False, True]
    assert made["stages"] == [2, 2, 2]


@torch.no_grad()
def test_a_block_that_changes_its_input_in_place_no_longer_does() -> None:
    torch.manual_seed(0)
    model = settled(PreActivationNet(), images())
    chain, shapes = built(adopt(model, images()), SMALL)
    assert shapes.residual == ()  # what is added is half of the input
    x = images()
    features = chain.stem(x)
    before = features.clone()
    for block in chain.blocks:
        block(features)
        assert torch.equal(features, before)
    assert torch.equal(chain(x), model(x))


def test_masks_and_tuples_of_encoders_stay_inside_of_blocks() -> None:
    torch.manual_seed(0)
    ids = torch.randint(1, 9, (4, 6))
    model = TextEncoder().eval()
    adopted = adopt(model, ids)
    signature = Signature((6,), 4, "text", 9)
    chain, shapes = built(adopted, signature)
    assert document(adopted)["names"] == ["layers.0", "layers.1", "layers.2"]
    assert shapes.residual == (0, 1, 2)
    assert shapes.view_shapes == ((8,), (8,), (8,)), "exits see the mean of the tokens"
    with torch.no_grad():
        assert torch.equal(chain(ids.float()), model(ids))


def test_blocks_can_be_named(resnet: nn.Module) -> None:
    whole = document(adopt(resnet, images(), blocks=["layer1", "layer2.0", "layer2.1"]))
    assert whole["names"] == ["layer1", "layer2.0", "layer2.1"]
    assert whole["stages"] == [1, 2]
    assert whole["skippable"] == [True, False, True] or whole["skippable"] == [False, False, True]
    late = document(adopt(resnet, images(), blocks=["layer2.1"]))
    assert [len(late["blocks"]), late["names"]] == [1, ["layer2.1"]]


def test_id_is_that_of_structure_and_weights(resnet: nn.Module, tmp_path: Path) -> None:
    first = adopt(resnet, images(), folder=tmp_path / "a")
    again = adopt(resnet, images(9), folder=tmp_path / "b")
    assert first.model == again.model
    other = settled(TorchvisionResNet(), images())
    assert adopt(other, images()).model != first.model
    assert Adopted.from_mapping(json.loads(json.dumps(first.to_mapping()))) == first


def test_frozen_weights_and_their_statistics_stay(resnet: nn.Module) -> None:
    adopted = adopt(resnet, images(), rate=(0.0, 0.5))
    frozen, _ = built(adopted, SMALL, 0.0)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen.train()(images())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not any(weight.requires_grad for weight in frozen.parameters())
    tuned, _ = built(adopted, SMALL, 0.5)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    tuned.train()(images()).sum().backward()
    assert all(weight.grad is not None for weight in tuned.parameters())
    assert not torch.equal(tuned.state_dict()["stem.bn1.running_mean"], before["stem.bn1.running_mean"])


def test_dropout_by_function_works_in_training_only() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = functional.dropout(layer(x).relu(), 0.5, self.training)
            return self.last(x)  # type: ignore[no-any-return]

    x, signature = torch.randn(4, 6), Signature((6,), 3)
    chain, _ = built(adopt(Dropping(), x), signature, 1.0)
    assert torch.equal(chain(x), chain(x))
    chain.train()
    assert not torch.equal(chain(x), chain(x))


def test_what_symbols_cannot_follow_is_exported() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = TorchvisionResNet()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            if x.size(1) != 1:
                raise ValueError("gray images only")
            return {"logits": self.net(x)}

    torch.manual_seed(0)
    model = settled(Careful(), images())
    adopted = adopt(model, images())
    chain, shapes = built(adopted, SMALL, 1.0)
    assert document(adopted)["names"] == [f"net.layer{stage}.{index}" for stage in (1, 2) for index in (0, 1)]
    assert shapes.residual == (0, 1, 3)
    with torch.no_grad():
        assert torch.equal(chain(images(7)), model(images(7))["logits"])
    before = {name: value.clone() for name, value in chain.state_dict().items() if "running" in name}
    chain.train()(images()).sum().backward()
    assert all(weight.grad is not None for weight in chain.parameters())
    assert before
    assert not any(torch.equal(chain.state_dict()[name], value) for name, value in before.items())


class Wrapped(nn.Module):
    """A residual network around which something is done."""

    def __init__(self, around: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.net = TorchvisionResNet()
        self.around = around

    def forward(self, x: Tensor) -> Any:
        return self.around(self.net, x)


class Looks(nn.Module):
    """A layer that branches on values."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if bool(x.sum() > 0) else -x


def with_looks() -> nn.Module:
    model = TorchvisionResNet()
    model.avgpool = nn.Sequential(Looks(), model.avgpool)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("make", "path", "says"),
    [
        (lambda: ("resnet18", images()), "model", "must be a torch.nn.Module, but got str; pass an instance"),
        (lambda: (nn.ReLU(), images()), "model", "must have weights"),
        (lambda: (TorchvisionResNet().half(), images()), "model.conv1.weight", "float16; pass model.float()"),
        (
            lambda: (TorchvisionResNet().double(), images()),
            "model.conv1.weight",
            "must be float32, but is torch.float64",
        ),
        (
            lambda: (TorchvisionResNet().to("meta"), images()),
            "model.conv1.weight",
            "must lie on the CPU, but lies on meta",
        ),
        (lambda: (TorchvisionResNet(), images().numpy()), "example_input", "must be one tensor `b x ...`"),
        (lambda: (TorchvisionResNet(), images()[:0]), "example_input", r"b >= 1, but has the shape \(0, 1, 8, 8\)"),
        (lambda: (TorchvisionResNet(), images().half()), "example_input", "must be float32, or int64"),
        (lambda: (TorchvisionResNet(), images().to("meta")), "example_input", "must lie on the CPU"),
        (lambda: (TorchvisionResNet(), images(2, 3)), "example_input", "what the model takes, but it fails on"),
        (lambda: (with_looks(), images()), "model.avgpool.0", "same operations for every input, but tracing it stops"),
        (lambda: (Wrapped(lambda net, x: {"a": net(x), "b": x}), images()), "model", "one tensor of logits, but gives"),
        (lambda: (Wrapped(lambda net, x: net(x)[:, 0]), images()), "model", r"logits `b x c` with c >= 2"),
        (lambda: (Wrapped(lambda net, x: net(x).mean(0, keepdim=True)), images()), "model", r"but gives \(1, 4\)"),
        (lambda: (Wrapped(lambda net, x: net(x) * torch.rand(1)), images()), "model", "same answer twice"),
        (
            lambda: (Wrapped(lambda net, x: net(x).view(5, 4)), images()),
            "model",
            "any number of inputs, but fails with",
        ),
        (lambda: (Wrapped(lambda net, x: torch.fft.fft(net(x)).real), images()), "model", "calls fft_fft"),
    ],
)
def test_unsuitable_models_are_refused_with_part_and_remedy(make: Any, path: str, says: str) -> None:
    torch.manual_seed(0)
    model, example = make()
    with pytest.raises(SpecError, match=says) as caught:
        adopt(model, example)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("blocks", "path", "says"),
    [
        (["layer1", "layer9"], "blocks.1", "did you mean 'layer"),
        (["layer2", "layer1"], "blocks.1", "must come after 'layer2'"),
        (["layer1", "layer1.0"], "blocks.1", "must come after 'layer1' and share nothing"),
        (["layer1.0.conv1"], "blocks.0", "must have one tensor `b x ...` of floats that"),
        (["layer1.0.relu"], "blocks.0", "must run once and in one go"),
        (["layer2", "fc"], "blocks", "must leave something for the head"),
        ([], "blocks", "must name at least one part"),
        ("layer1", "blocks", "must be a list of paths"),
    ],
)
def test_impossible_blocks_are_refused(resnet: nn.Module, blocks: Any, path: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        adopt(resnet, images(), blocks=blocks)
    assert caught.value.path == path
    assert isinstance(caught.value, UnknownNameError) == ("layer9" in blocks)


def test_weights_are_given_to_a_copy(resnet: nn.Module, tmp_path: Path) -> None:
    fresh, file = TorchvisionResNet(), tmp_path / "weights.pt"
    torch.save({"state_dict": resnet.state_dict(), "best": 1.0}, file)
    assert adopt(fresh, images(), weights=file).model == adopt(resnet, images()).model
    assert not torch.equal(fresh.conv1.weight, dict(resnet.named_parameters())["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        (lambda state: {f"module.{name}": value for name, value in state.items()}, "weights.conv1.weight", "strip it"),
        (lambda state: {n: v for n, v in state.items() if n != "fc.bias"}, "weights.fc.bias", "is missing"),
        (lambda state: {**state, "more": torch.ones(1)}, "weights.more", "is not asked for"),
        (lambda state: {**state, "fc.bias": torch.ones(9)}, "weights.fc.bias", r"must be \(4,\), but is \(9,\)"),
        (lambda state: list(state), "weights", "must be a state dict or its file, but got list"),
        (lambda state: "nowhere.pt", "weights", "reading it failed"),
    ],
)
def test_weights_of_another_model_are_refused(resnet: nn.Module, change: Any, path: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        adopt(TorchvisionResNet(), images(), weights=change(resnet.state_dict()))
    assert caught.value.path == path


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": TorchvisionResNet()}, tmp_path / "whole.pt")
    with pytest.raises(SpecError, match="must be a file of tensors alone"):
        adopt(TorchvisionResNet(), images(), weights=tmp_path / "whole.pt")

"""Models of libraries, where those are installed; nothing is downloaded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynarch.spaces.adopted import shelf
from dynarch.spaces.adoption import adopt
from dynarch.spaces.backbones import Adopted
from dynarch.tests.own_models import settled

IDS = torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    """A model of transformers that gives logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits  # type: ignore[no-any-return]


def names(adopted: Adopted) -> list[str]:
    found: list[str] = shelf.load(adopted.model)[0].document["names"]
    return found


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta"])
def test_encoders_of_transformers(kind: str) -> None:
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = (
        {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
        if kind == "DistilBert"
        else {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    )
    torch.manual_seed(0)
    config = getattr(library, f"{kind}Config")(vocab_size=50, num_labels=4, **sizes)
    model = Logits(getattr(library, f"{kind}ForSequenceClassification")(config)).eval()
    adopted = adopt(model, IDS)
    assert len(names(adopted)) >= 3
    assert all(shelf.load(adopted.model)[0].document["skippable"])


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("mobilenet_v2", 18)])
def test_models_of_torchvision(name: str, blocks: int) -> None:
    library = pytest.importorskip("torchvision", reason="torchvision is not installed")
    x = torch.randn(3, 3, 64, 64)
    assert len(names(adopt(settled(getattr(library.models, name)(num_classes=4), x), x))) == blocks


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_models_of_timm(name: str) -> None:
    library = pytest.importorskip("timm", reason="timm is not installed")
    x = torch.randn(2, 3, 224, 224)
    assert len(names(adopt(library.create_model(name, num_classes=4).eval(), x))) >= 8

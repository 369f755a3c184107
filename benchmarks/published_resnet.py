"""The published CIFAR-10 ResNet-56 and the images that it is made dynamic on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dynarch.evaluators.splits import Part, Splits
from dynarch.spaces.signature import Signature
from dynarch.tests.own_models import CifarResNet

SIGNATURE = Signature((3, 32, 32), 10)


class WithNormalisation(nn.Module):
    """The published network behind the normalisation that it was trained with: takes pixels of 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))
        self.net = CifarResNet(depth)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `b x 10`."""
        made: Tensor = self.net((x - self.mean) / self.std)
        return made


def original(data: Path) -> nn.Module:
    """The trained ResNet-56."""
    file = next((data / "weights" / "resnet_cifar10").glob("resnet56-*.th"))
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    model = WithNormalisation(9)
    model.net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return model.eval()


def splits_of(data: Path, seed: int) -> Splits:
    """Training images; the test images as 1,000 to calibrate on, 2,000 to choose policies on, 2,000 to score on."""
    folder = data / "image" / "cifar10"
    with np.load(folder / "labels.npz") as labels:
        train_y, test_y = labels["train_y"].astype(np.int64), labels["test_y"].astype(np.int64)
    train = torch.cat([_images(folder / f"data_batch_{number}.png") for number in (1, 2)])
    test = _images(folder / "test_first5000.png")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(test)))

    def part(rows: Tensor) -> Part:
        return Part(test[rows], torch.from_numpy(test_y)[rows])

    calibration, tune, certify = torch.split(order, [1000, 2000, 2000])
    return Splits(Part(train, torch.from_numpy(train_y)), part(calibration), part(tune), part(certify), SIGNATURE)


def _images(file: Path) -> Tensor:
    pixels = np.asarray(Image.open(file)).reshape(-1, 32, 32, 3)
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)

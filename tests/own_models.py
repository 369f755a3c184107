"""Models as users write them, to be adopted: none of them knows of dynarch."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def plain() -> nn.Module:
    """Layers in a row."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


class TorchvisionBlock(nn.Module):
    """A basic block as torchvision has it: one ReLU for both places, and it works in place."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class TorchvisionResNet(nn.Module):
    """Named and ordered as torchvision's, small."""

    def __init__(self, depths: tuple[int, ...] = (2, 2), width: int = 4, channels: int = 1, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 1, 1)
        planes = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                out = width * 2**stage
                blocks.append(TorchvisionBlock(planes, out, 2 if stage and not index else 1))
                planes = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(planes, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)  # type: ignore[no-any-return]


class Shortcut(nn.Module):
    """A shortcut without weights: every second pixel, and channels of zeros around."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4), "constant", 0)


class CifarBlock(nn.Module):
    """A basic block of the CIFAR ResNets of He et al., with shortcuts of type A."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Sequential() if stride == 1 else Shortcut(planes)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return functional.relu(out)


class CifarResNet(nn.Module):
    """ResNet-20, -56 and so on: `depth` blocks a stage; named as the trained weights of the shared data are."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        planes = 16
        for stage in range(3):
            out, blocks = 16 * 2**stage, []
            for index in range(depth):
                blocks.append(CifarBlock(planes, out, 2 if stage and not index else 1))
                planes = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            out = getattr(self, f"layer{stage}")(out)
        out = functional.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)  # type: ignore[no-any-return]


class PreActivation(nn.Module):
    """A block that changes its input in place before it adds to it."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(planes)
        self.conv = nn.Conv2d(planes, planes, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        return x + self.conv(functional.relu(self.bn(x), inplace=True))  # type: ignore[no-any-return]


class PreActivationNet(nn.Module):
    """A few such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 2, 1)
        self.blocks = nn.ModuleList(PreActivation(4) for _ in range(3))
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Encoded(NamedTuple):
    """What an encoder layer of some libraries returns."""

    hidden: Tensor
    attention: Tensor


class EncoderLayer(nn.Module):
    """Attention and a perceptron, each with its shortcut; takes a mask and returns two tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            OrderedDict(up=nn.Linear(width, 2 * width), act=nn.GELU(), down=nn.Linear(2 * width, width))
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Encoded:
        query, key, value = self.qkv(self.norm1(hidden)).chunk(3, -1)
        scores = query @ key.transpose(1, 2) / query.size(-1) ** 0.5 + mask
        attention = scores.softmax(-1)
        hidden = hidden + self.out(attention @ value)
        return Encoded(hidden + self.mlp(self.norm2(hidden)), attention)


class TextEncoder(nn.Module):
    """Ids of words -> classes; its mask follows from the number of inputs alone."""

    def __init__(self, words: int = 9, width: int = 8, length: int = 6, layers: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.randn(1, length, width))
        self.layers = nn.ModuleList(EncoderLayer(width) for _ in range(layers))
        self.norm, self.classify = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.words(ids) + self.places
        if mask is None:
            mask = torch.ones(ids.shape[0], 1, ids.shape[1], device=ids.device)
        mask = (1 - mask) * -1e4
        for layer in self.layers:
            hidden, _ = layer(hidden, mask)
        return self.classify(self.norm(hidden)[:, 0])  # type: ignore[no-any-return]


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """A model whose normalisation has seen inputs, as a trained one's has; in evaluation mode."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
    return model.eval()

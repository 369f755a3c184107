"""Augmentation of training images; no other split is ever augmented."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(x: Tensor, generator: torch.Generator, *, shift: int, flip: bool) -> Tensor:
    """Images `b x c x h x w`, each moved by up to `shift` pixels and mirrored with probability 1/2.

    Inputs that are no images come back as they are.
    """
    if x.dim() != 4:
        return x
    batch, _, height, width = x.shape
    if flip:
        mirrored = torch.rand(batch, generator=generator) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1).to(x.device), x.flip(3), x)
    if shift:
        padded = functional.pad(x, (shift,) * 4)
        rows = torch.randint(0, 2 * shift + 1, (batch, 1), generator=generator) + torch.arange(height)
        columns = torch.randint(0, 2 * shift + 1, (batch, 1), generator=generator) + torch.arange(width)
        index = torch.arange(batch).view(-1, 1, 1)
        moved = padded.permute(0, 2, 3, 1)[index, rows.unsqueeze(2), columns.unsqueeze(1)]  # b x h x w x c
        # Not `contiguous()`: of one channel that keeps strides which pass for channels-last, where the backward
        # pass of a strided 1 x 1 convolution with 4 channels writes past its memory (PyTorch 2.13 on CPUs).
        x = moved.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    return x

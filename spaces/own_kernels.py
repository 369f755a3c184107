"""Convolutions in which each input has a kernel of its own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def convolve_each(
    x: Tensor, kernels: Tensor, *, stride: tuple[int, ...], padding: int | tuple[int, ...], groups: int = 1
) -> Tensor:
    """Each input convolved with its own kernel.

    A batch is one grouped convolution; one input, an ordinary one.

    Args:
        x: `b x c x h x w`.
        kernels: `b x out x c/groups x kh x kw`.
        stride: down and across.
        padding: zeros on each side.
        groups: of each convolution.

    Returns:
        `b x out x h' x w'`.
    """
    b, c, h, w = x.shape
    if b == 1:
        return functional.conv2d(x, kernels[0], None, stride, padding, groups=groups)
    together = x.reshape(1, b * c, h, w)
    made = functional.conv2d(together, kernels.flatten(0, 1), None, stride, padding, groups=b * groups)
    return made.view(b, -1, *made.shape[2:])


def normalise_picked(norm: nn.BatchNorm2d, x: Tensor, picked: Tensor) -> Tensor:
    """What a batch normalisation makes, in evaluation mode, of some of its channels.

    Args:
        norm: of all `c` channels.
        x: `b x k x h x w`.
        picked: `b x k` numbers of channels.
    """
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    offset = norm.bias - norm.running_mean * factor
    return x * factor[picked][:, :, None, None] + offset[picked][:, :, None, None]

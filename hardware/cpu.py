"""The processor this process runs on, eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ..spaces.errors import SpecError
from .device import MEMORY_FORMATS, AbstractDevice, Statistic, check_count, check_dtype, check_threads, cpu_items


@final
@dataclass(frozen=True)
class Cpu(AbstractDevice):
    """Eager PyTorch on the host processor.

    One thread by default: with more, a core taken by a neighbour stalls every parallel region, and the
    measurements say more about the neighbour than about the network.

    Args:
        batch: inputs at a time.
        threads: threads of an operation.
        dtype: `float32` or `bfloat16`.
        memory_format: `contiguous` or `channels_last`, for images and weights of convolutions.

    Raises:
        SpecError: if `batch` or `threads` is below 1, or `dtype` or `memory_format` is none of these.
        DeviceUnavailableError: if `threads` exceeds the cores this process may use.
    """

    kind: ClassVar[str] = "cpu"
    statistic: ClassVar[Statistic] = "min"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"
    memory_format: str = "contiguous"

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_threads(self.threads)
        check_dtype(self.dtype, ("float32", "bfloat16"))
        if self.memory_format not in MEMORY_FORMATS:
            raise SpecError(
                "memory_format", f"must be one of {', '.join(MEMORY_FORMATS)}, but got {self.memory_format!r}"
            )

    @property
    def torch_device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing to wait for: eager CPU calls return when they are done."""

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """Model, stepping and instruction sets of the processor."""
        return cpu_items()

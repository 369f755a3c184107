"""The processor this process runs on, eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ..spaces.errors import DeviceUnavailableError
from .device import AbstractDevice, Statistic, check_count, check_dtype, cpu_items, visible_cores


@final
@dataclass(frozen=True)
class Cpu(AbstractDevice):
    """Eager PyTorch on the host processor.

    One thread by default: with more, a core taken by a neighbour stalls every parallel region, and the
    measurements say more about the neighbour than about the network.

    Raises:
        SpecError: if `batch` or `threads` is below 1 or `dtype` is not float32 or bfloat16.
        DeviceUnavailableError: if `threads` exceeds the cores this process may use.
    """

    kind: ClassVar[str] = "cpu"
    statistic: ClassVar[Statistic] = "min"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_count("threads", self.threads)
        check_dtype(self.dtype, ("float32", "bfloat16"))
        cores = visible_cores()
        if self.threads > cores:
            raise DeviceUnavailableError(
                f"threads <= visible cores must hold, but got threads={self.threads} with {cores} visible;"
                f" use threads={cores} or fewer"
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

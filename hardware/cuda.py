"""One NVIDIA GPU of this machine, eager PyTorch, timed end to end on the host's clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ..spaces.errors import DeviceUnavailableError, SpecError
from .device import AbstractDevice, Statistic, check_count, check_dtype, cpu_items


@final
@dataclass(frozen=True)
class Cuda(AbstractDevice):
    """Eager PyTorch on the GPU at `index`.

    Times are end to end on the host's clock with a synchronisation after each call: a dynamic network
    reads its gates on the host, so launch overhead and pipeline joins are part of what it costs.

    Raises:
        SpecError: if `batch`, `threads`, `dtype` or `index` is not a value that any GPU could take.
        DeviceUnavailableError: if no such GPU is visible; the message says why.
    """

    kind: ClassVar[str] = "cuda"
    # The clock of a GPU moves both ways, so its fastest sample is luck and the median is not.
    statistic: ClassVar[Statistic] = "median"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"
    index: int = 0

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_count("threads", self.threads)
        check_dtype(self.dtype, ("float32", "bfloat16", "float16"))
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index < 0:
            raise SpecError("index", f"must be an integer of at least 0, but got {self.index!r}")
        if reason := self._why_absent():
            raise DeviceUnavailableError(f"CUDA device {self.index} is not available: {reason}; use a cpu device")

    def _why_absent(self) -> str:
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            return f"torch {torch.__version__} is built without CUDA"
        if not torch.cuda.is_available():
            return "no GPU is visible to this process (check the driver and CUDA_VISIBLE_DEVICES)"
        if self.index >= torch.cuda.device_count():
            return f"only {torch.cuda.device_count()} GPUs are visible"
        return ""

    @property
    def torch_device(self) -> torch.device:
        """The GPU at `index`."""
        return torch.device("cuda", self.index)

    def synchronize(self) -> None:
        """Wait for all kernels of this GPU; without it the clock would time the launch only."""
        torch.cuda.synchronize(self.torch_device)

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """GPU, drivers and numeric modes, and the processor that launches the kernels."""
        properties = torch.cuda.get_device_properties(self.torch_device)
        return (
            *cpu_items(),
            ("gpu_model", str(properties.name)),
            ("gpu_capability", f"{properties.major}.{properties.minor}"),
            ("gpu_memory_mb", int(properties.total_memory) // 2**20),
            ("gpu_processors", int(properties.multi_processor_count)),
            ("cuda", str(torch.version.cuda)),
            ("cudnn", str(torch.backends.cudnn.version())),  # type: ignore[no-untyped-call]
            ("cudnn_benchmark", bool(torch.backends.cudnn.benchmark)),
            ("matmul_precision", torch.get_float32_matmul_precision()),
            ("conv_tf32", bool(torch.backends.cudnn.allow_tf32)),
        )

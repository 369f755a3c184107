"""The processor this process runs on, through `torch.compile`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ..spaces.errors import DeviceUnavailableError
from .device import AbstractDevice, Statistic, check_count, check_dtype, check_threads, cpu_items
from .programs import Program, with_programs


@final
@dataclass(frozen=True)
class CompiledCpu(AbstractDevice):
    """Programs of TorchInductor on the host processor, one for each piece of a network and shape of its inputs.

    Compiling takes seconds a program, at its first call, outside of what is timed; PyTorch keeps the results
    on disk. A piece must be one graph: what cannot be compiled whole is refused, never run eagerly in secret.

    Source: Ansel et al., "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and
    Graph Compilation", ASPLOS 2024.

    Raises:
        SpecError: if `batch` or `threads` is below 1 or `dtype` is not float32 or bfloat16.
        DeviceUnavailableError: if `threads` exceeds the cores this process may use, or there is no C++ compiler.
    """

    kind: ClassVar[str] = "cpu_compile"
    runtime: ClassVar[str] = "compile"
    statistic: ClassVar[Statistic] = "min"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_threads(self.threads)
        check_dtype(self.dtype, ("float32", "bfloat16"))
        name = _compiler()
        if shutil.which(name) is None:
            raise DeviceUnavailableError(
                f"a {self.kind} device needs a C++ compiler, but there is no {name!r} on the PATH;"
                " install g++, name another in the environment variable CXX, or use a cpu device"
            )

    @property
    def torch_device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing to wait for: programs return when they are done."""

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """The processor, and the compiler that makes its kernels."""
        return (*cpu_items(), ("compiler", _compiler_version(_compiler())))

    def prepare(self, module: nn.Module) -> nn.Module:
        """A copy of `module` whose pieces are compiled when they are first called.

        Of a dynamic network, or a step of one, the children of each step are compiled; decisions stay in Python.
        """
        with torch.inference_mode(False):  # weights copied inside would lack what the compiler asks for
            return with_programs(super().prepare(module), self._build)

    def _build(self, module: nn.Module, examples: tuple[Tensor, ...]) -> Program:
        program: Program = torch.compile(_function_of(module), fullgraph=True, dynamic=False)
        try:
            with _threads(self.threads), torch.no_grad():  # kernels are written for a number of threads
                program(*examples)
        except Exception as error:  # their root can only be named by loading the compiler, which takes seconds
            raise DeviceUnavailableError(
                f"a {self.kind} device runs only what compiles as one graph, but {type(module).__name__} does not"
                f" ({_first_line(error)}); use a cpu device for it"
            ) from error
        return program


def _function_of(module: nn.Module) -> Program:
    """`module` as a function with code of its own.

    The compiler keeps its results by code object, and gives up on one after a few. Modules of one class share
    theirs, so that the ninth network would run eagerly without a word.
    """

    def program(*inputs: Tensor) -> object:
        return module(*inputs)

    own = program.__code__.replace(co_name=f"program_of_{type(module).__name__}")
    return FunctionType(own, program.__globals__, own.co_name, None, program.__closure__)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compiler() -> str:
    """The command that TorchInductor will call."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


@cache
def _compiler_version(name: str) -> str:
    done = subprocess.run([name, "--version"], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.partition("\n")[0].strip() or name


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

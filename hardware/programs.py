"""Programs: what a compiler or another runtime makes of a module, one for each shape of its inputs.

A dynamic network decides on the host, in Python, which of its pieces run. So it is never compiled whole:
each piece that a step calls becomes a program, and steps, decisions and compaction stay as they are.
Routed mode then runs the very programs that the latency table measured one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from ..spaces.step import AbstractStep

Program = Callable[..., Any]  # tensors in; a tensor, or a tuple of them, out
Build = Callable[[nn.Module, tuple[Tensor, ...]], Program]
"""Makes the program of a module for inputs like these examples."""

_Form = tuple[tuple[torch.Size, torch.dtype], ...]


@final
class ProgramModule(nn.Module):
    """Runs a module as programs.

    The program for a new shape is built at the first call with it, which takes seconds: a stopwatch calls
    once before it starts, or takes the best of several rounds. Shapes are exact, so of a batch that shrinks
    while inputs leave, every size that occurs is a program of its own.

    Args:
        source: what to run; its weights are read when a program is built, not after.
        build: makes the programs.
    """

    def __init__(self, source: nn.Module, build: Build) -> None:
        super().__init__()
        self.source = source
        self._build = build
        self._programs: dict[_Form, Program] = {}

    def forward(self, *inputs: Tensor) -> Any:
        """The module's outputs, from the program for inputs of these shapes."""
        form = tuple((x.shape, x.dtype) for x in inputs)
        program = self._programs.get(form)
        if program is None:
            program = self._programs[form] = self._build(self.source, tuple(map(_ordinary, inputs)))
        return program(*inputs)

    def __getstate__(self) -> dict[str, object]:
        """A copy builds its programs anew: they hold memory of compilers that nothing can copy."""
        return {**self.__dict__, "_programs": {}}


def with_programs(module: nn.Module, build: Build) -> nn.Module:
    """`module` with everything that runs on tensors alone turned into programs, in place where it holds steps.

    A module without steps becomes one program. In one with steps (a dynamic network, or a step itself) the
    children of each step do; what the step's own Python does with their results, and what it keeps by name, stays
    on the host.
    """
    holds_steps = any(isinstance(inner, AbstractStep) for inner in module.modules())
    # A list of modules cannot be called, so whoever holds it calls its members.
    if not holds_steps and type(module).forward is not nn.Module.forward:
        return ProgramModule(module, build).eval()
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.ModuleDict):  # what decisions learned is asked by name, in the step's own Python
            module.add_module(name, with_programs(child, build))
    return module


def _ordinary(x: Tensor) -> Tensor:
    """A copy outside of inference mode: compilers ask tensors for what those made inside it do not have."""
    with torch.inference_mode(False), torch.no_grad():
        return x.detach().clone()

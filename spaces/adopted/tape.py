"""Tape: a piece of a user's model as the operations that it runs, one after the other.

A piece is a JSON document, checked when a tape is made of it:

    {"leaves":  {name: {"kind": "Conv2d", "options": {...}, "path": "layer1.0.conv1"}},
     "tensors": {name: {"path": "cls_token", "learns": true, "shape": [1, 1, 8], "dtype": "float32"}},
     "steps":   [["leaf", name, arguments, keywords], ["call", "torch.relu", arguments, keywords], ["tensor", name],
                 ["batch"]],
     "result":  5}

Slot 0 is the input and slot `i` what step `i` made, counted from 1. An argument is a plain value, a list, or a table
with one entry: `slot`, `tuple`, `slice`, `dtype`, `float` (such as `-inf`), `device` (that of the input), `training`
(whether the tape is), `ellipsis`, `memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from ..errors import SpecError
from .calls import call_of

Piece = Mapping[str, Any]
_Step = Callable[["Tape", list[Any]], Any]
_Argument = Callable[["Tape", list[Any]], Any]
_KINDS = ("leaf", "call", "tensor", "batch")


@final
class Tape(nn.Module):
    """Runs the steps of a piece; features `b x ...` -> features `b x ...`.

    Args:
        piece: the document.
        leaves: its layers; pieces that share a layer are given the same one.
        tensors: its parameters and constants.
        rate: how fast the adopted weights learn, compared with new ones; at 0 they are frozen, normalisation included.
        path: of the document, for errors.

    Raises:
        SpecError: if the document is none, or asks for what no tape may do.
    """

    def __init__(
        self,
        piece: Piece,
        *,
        leaves: Mapping[str, nn.Module],
        tensors: Mapping[str, Tensor],
        rate: float,
        path: str,
    ) -> None:
        super().__init__()
        for name, module in leaves.items():
            self.add_module(name, module)
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
        self.rate = rate
        self._steps = [_compiled(step, i, piece, f"{path}.steps.{i}") for i, step in enumerate(piece["steps"])]
        self._result = _slot(piece["result"], len(self._steps) + 1, f"{path}.result")
        self._dead = _dead_after(piece)
        if rate == 0:
            self.requires_grad_(False)
            self.train(False)

    def train(self, mode: bool = True) -> Tape:
        """Frozen tapes stay in evaluation mode: their normalisation learns nothing either."""
        super().train(mode and self.rate > 0)
        return self

    def thaw(self) -> None:
        """Let the weights learn as fast as new ones."""
        self.rate = 1.0
        self.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        """What the piece makes of its input."""
        values: list[Any] = [x]
        for step, dead in zip(self._steps, self._dead, strict=True):
            values.append(step(self, values))
            for slot in dead:
                values[slot] = None  # lets the memory go
        made: Tensor = values[self._result]
        return made


def learning(network: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
    """The weights of a network that learn, by how fast they do; new ones, at rate 1, come first."""
    adopted: dict[int, float] = {}
    for module in network.modules():
        if isinstance(module, Tape) and module.rate > 0:
            adopted |= dict.fromkeys(map(id, module.parameters()), module.rate)
    rates: dict[float, list[nn.Parameter]] = {1.0: []}
    for weight in network.parameters():
        if weight.requires_grad:
            rates.setdefault(adopted.get(id(weight), 1.0), []).append(weight)
    return list(rates.items())


def _compiled(step: Sequence[Any], index: int, piece: Piece, path: str) -> _Step:
    kind = step[0] if step else None
    if kind not in _KINDS:
        raise SpecError(path, f"must be one of {', '.join(_KINDS)}, but is {kind!r}")
    if kind == "batch":
        return lambda tape, values: values[0].shape[0]
    name = str(step[1])
    if kind == "tensor":
        _known(name, piece["tensors"], path)
        return lambda tape, values: _tensor_of(tape, name)
    slots = _plain_slots(step[2], index + 1) if not step[3] else None
    arguments = [_argument(each, index + 1, f"{path}.arguments.{i}") for i, each in enumerate(step[2])]
    keywords = {str(key): _argument(each, index + 1, f"{path}.{key}") for key, each in step[3].items()}
    if kind == "leaf":
        _known(name, piece["leaves"], path)
        return _leaf_step(name, slots, arguments, keywords)
    return _call_step(call_of(name, path), slots, arguments, keywords)


def _leaf_step(name: str, slots: list[int] | None, given: list[_Argument], named: dict[str, _Argument]) -> _Step:
    # By name, and not the layer itself: copies of a tape, and families that replace layers, change what it means.
    if slots is not None and len(slots) == 1:
        (slot,) = slots
        return lambda tape, values: tape._modules[name](values[slot])  # type: ignore[misc]
    return lambda tape, values: tape._modules[name](  # type: ignore[misc]
        *[each(tape, values) for each in given], **{key: each(tape, values) for key, each in named.items()}
    )


def _call_step(
    call: Callable[..., Any], slots: list[int] | None, given: list[_Argument], named: dict[str, _Argument]
) -> _Step:
    if slots is not None and len(slots) == 1:
        (slot,) = slots
        return lambda tape, values: call(values[slot])
    if slots is not None and len(slots) == 2:
        left, right = slots
        return lambda tape, values: call(values[left], values[right])
    return lambda tape, values: call(
        *[each(tape, values) for each in given], **{key: each(tape, values) for key, each in named.items()}
    )


def _tensor_of(tape: Tape, name: str) -> Tensor | None:
    return tape._parameters[name] if name in tape._parameters else tape._buffers[name]


def _known(name: str, table: Mapping[str, Any], path: str) -> None:
    if name not in table:
        raise SpecError(path, f"must name one of {', '.join(table) or 'nothing'}, but names {name!r}")


def _slot(value: object, end: int, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise SpecError(path, f"must be the number of an earlier step, below {end}, but is {value!r}")
    return value


def _plain_slots(arguments: Sequence[Any], end: int) -> list[int] | None:
    """The slots of arguments that are nothing else; None if one is."""
    if not all(isinstance(each, Mapping) and set(each) == {"slot"} for each in arguments):
        return None
    return [_slot(each["slot"], end, "slot") for each in arguments]


def _argument(value: Any, end: int, path: str) -> _Argument:
    if isinstance(value, list):
        items = [_argument(each, end, path) for each in value]
        return lambda tape, values: [each(tape, values) for each in items]
    if not isinstance(value, Mapping):
        return lambda tape, values: value
    if len(value) != 1:
        raise SpecError(path, f"must be a value or a table with one entry, but is {value!r}")
    ((kind, held),) = value.items()
    if kind == "slot":
        slot = _slot(held, end, path)
        return lambda tape, values: values[slot]
    if kind in ("tuple", "slice"):
        items = [_argument(each, end, path) for each in held]
        make = tuple if kind == "tuple" else _slice
        return lambda tape, values: make([each(tape, values) for each in items])
    if kind == "device":
        return lambda tape, values: values[0].device
    if kind == "training":
        return lambda tape, values: tape.training
    constant = _constant(kind, held, path)
    return lambda tape, values: constant


def _slice(items: list[Any]) -> slice:
    return slice(*items)


def _constant(kind: str, held: Any, path: str) -> Any:
    found: Any = getattr(torch, str(held), None)
    if kind == "dtype" and isinstance(found, torch.dtype):
        return found
    if kind == "memory" and isinstance(found, torch.memory_format):
        return found
    if kind == "float" and held in ("inf", "-inf", "nan"):
        return float(held)
    if kind == "ellipsis":
        return ...
    raise SpecError(path, f"must be an argument that a tape can hold, but is {{{kind!r}: {held!r}}}")


def _dead_after(piece: Piece) -> list[tuple[int, ...]]:
    """After each step, the slots that nothing needs any more; the input belongs to whoever gave it."""
    last: dict[int, int] = {}
    for index, step in enumerate(piece["steps"]):
        for slot in _slots_in(step[2:]):
            last[slot] = index
    keep = {piece["result"], 0}
    return [
        tuple(slot for slot, end in last.items() if end == index and slot not in keep)
        for index in range(len(piece["steps"]))
    ]


def _slots_in(value: Any) -> list[int]:
    if isinstance(value, Mapping):
        if set(value) == {"slot"}:
            return [value["slot"]]
        return [slot for each in value.values() for slot in _slots_in(each)]
    return [slot for each in value for slot in _slots_in(each)] if isinstance(value, list | tuple) else []

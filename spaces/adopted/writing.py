"""Writing: a stretch of a trace as the document that a tape is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from ..errors import SpecError
from .calls import GETATTR, TRAINING, call_name, method_name, plain
from .cutting import Stretch
from .leaves import leaf_options
from .tape import Piece
from .tracing import Trace, attribute, bound, in_place_on

_UNSAID = ("layout", "pin_memory")  # arguments of factories that change nothing here
_ADDS = ("add", "iadd")
_PASSING = frozenset(
    """
    relu relu6 leaky_relu leakyrelu elu gelu silu hardswish dropout dropout2d identity layer_norm layernorm rms_norm
    rmsnorm batch_norm batchnorm1d batchnorm2d contiguous clone
    """.split()  # noqa: SIM905
)


def piece_of(trace: Trace, stretch: Stretch) -> Piece:
    """The document of a stretch.

    Raises:
        SpecError: if it does what no tape can do; the path names the part of the model.
    """
    writer = _Writer(trace, stretch)
    for node in trace.nodes[stretch.first : stretch.last + 1]:
        writer.slot(node)
    return writer.document()


def skippable(piece: Piece) -> bool:
    """Whether the input of a piece is added to what it makes, with nothing but an activation or a norm behind."""
    waiting, seen = [(piece["result"], False)], set()
    while waiting:
        slot, added = waiting.pop()
        if slot == 0 and added:
            return True
        if slot == 0 or (slot, added) in seen:
            continue
        seen.add((slot, added))
        kind, *step = piece["steps"][slot - 1]
        if kind not in ("leaf", "call"):
            continue
        name, given, named = step
        operation = plain(name) if kind == "call" else piece["leaves"][name]["kind"].lower()
        slots = [each["slot"] for each in (*given, *named.values()) if isinstance(each, Mapping) and "slot" in each]
        if operation in _ADDS and len(slots) == 2:
            waiting += [(each, True) for each in slots]
        elif operation in _PASSING:
            waiting += [(each, added) for each in slots[:1]]
    return False


@final
class _Writer:
    """Steps so far, and which slot holds what."""

    def __init__(self, trace: Trace, stretch: Stretch) -> None:
        self._trace = trace
        self._entry = trace.nodes[stretch.first - 1] if stretch.first > 0 else trace.source
        self._exit = trace.nodes[stretch.last] if stretch.last >= stretch.first else self._entry
        self._slots: dict[fx.Node, int] = {self._entry: 0}
        self._batch: int | None = None
        self._steps: list[list[Any]] = []
        self._leaves: dict[str, dict[str, Any]] = {}
        self._tensors: dict[str, dict[str, Any]] = {}

    def document(self) -> Piece:
        """The whole piece."""
        return {
            "leaves": self._leaves,
            "tensors": self._tensors,
            "steps": self._steps,
            "result": self._slots[self._exit],
        }

    def slot(self, node: fx.Node) -> int:
        """Where a value is; what no input changes is computed here if it is not there yet."""
        if node not in self._slots:
            self._slots[node] = self._written(node)
        return self._slots[node]

    def _written(self, node: fx.Node) -> int:
        if self._trace.facts[node].batch:
            if self._batch is None:
                self._batch = self._add(["batch"])
            return self._batch
        if node.op == "get_attr":
            return self._add(["tensor", self._tensor(str(node.target))])
        borrowed = in_place_on(node, self._trace.root) is self._entry  # which belongs to others as well
        if node.op == "call_module":
            given, named = self._arguments(node, node.args, node.kwargs)
            return self._add(["leaf", self._leaf(str(node.target), borrowed=borrowed), given, named])
        name = method_name(str(node.target)) if node.op == "call_method" else call_name(node.target)
        if name is None:
            what = getattr(node.target, "__name__", node.target)
            rule = f"may call what `spaces/adopted/calls.py` lists, but calls {what}"
            raise SpecError(self._place(node), f"{rule}; replace it, or wrap it into a layer of torch")
        return self._add(["call", *self._call(node, name, borrowed=borrowed)])

    def _call(self, node: fx.Node, name: str, *, borrowed: bool) -> list[Any]:
        args, kwargs = list(node.args), dict(node.kwargs)
        known = bound(node)
        if any(each in known and each not in kwargs for each in ("training", "inplace")):  # by their place
            args, kwargs = [], known
        if borrowed:
            kwargs |= {"inplace": False} if "inplace" in known else {}
            name = _out_of_place(name)
        given, named = self._arguments(node, args, kwargs)
        if kwargs.get("training") is False:
            named["training"] = {"training": None}
        if name in TRAINING and given[TRAINING[name]] is False:
            given[TRAINING[name]] = {"training": None}
        return [name, given, named]

    def _add(self, step: list[Any]) -> int:
        self._steps.append(step)
        return len(self._steps)

    def _leaf(self, path: str, *, borrowed: bool) -> str:
        module = self._trace.root.get_submodule(path)
        options = leaf_options(module, self._path(path))
        if borrowed:
            options["inplace"] = False
        return _put(self._leaves, path, {"kind": type(module).__name__, "options": options, "path": path})

    def _tensor(self, path: str) -> str:
        value = attribute(self._trace.root, path)
        if not isinstance(value, Tensor):
            raise SpecError(self._path(path), f"must be a tensor, but is {type(value).__name__}; keep it as a buffer")
        if value.requires_grad and not value.is_leaf:
            rule = "must be a parameter, but is computed of others"
            raise SpecError(self._path(path), f"{rule}; remove the parametrization before adopting the model")
        learns, dtype = isinstance(value, nn.Parameter), str(value.dtype).removeprefix("torch.")
        return _put(self._tensors, path, {"path": path, "learns": learns, "shape": list(value.shape), "dtype": dtype})

    def _arguments(self, node: fx.Node, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        given = [self._argument(each, node) for each in args]
        return given, {key: self._argument(each, node) for key, each in kwargs.items() if key not in _UNSAID}

    def _argument(self, value: Any, node: fx.Node) -> Any:
        if isinstance(value, fx.Node):
            fact = self._trace.facts[value]
            return self._argument(fact.value, node) if fact.constant else {"slot": self.slot(value)}
        if isinstance(value, tuple):
            return {"tuple": [self._argument(each, node) for each in value]}
        if isinstance(value, list):
            return [self._argument(each, node) for each in value]
        if isinstance(value, slice):
            return {"slice": [self._argument(each, node) for each in (value.start, value.stop, value.step)]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.dtype | torch.memory_format):
            kind = "dtype" if isinstance(value, torch.dtype) else "memory"
            return {kind: str(value).removeprefix("torch.")}
        if isinstance(value, torch.device) or value is ...:
            return {"ellipsis" if value is ... else "device": None}
        raise SpecError(self._place(node), f"must be called with plain values and tensors, but is given {value!r}")

    def _place(self, node: fx.Node) -> str:
        return self._path(".".join(self._trace.paths(node)[-1:]))

    @staticmethod
    def _path(path: str) -> str:
        return f"model.{path}" if path else "model"


def _out_of_place(name: str) -> str:
    space, *rest = name.split(".")
    if space == "operator":
        return f"operator.{rest[0].removeprefix('i')}" if rest[0] in ("iadd", "isub", "imul", "itruediv") else name
    return ".".join([space, rest[0].rstrip("_"), *rest[1:]]) if name != GETATTR else name


def _put(table: dict[str, dict[str, Any]], path: str, entry: dict[str, Any]) -> str:
    """The name of an entry: the end of its path as far as that tells it from others."""
    parts = path.split(".")
    for count in range(1, len(parts) + 1):
        name = "_".join(parts[-count:])
        name = name if not name[0].isdigit() else f"layer_{name}"
        if table.setdefault(name, entry) == entry:
            return name
    number = 2
    while table.setdefault(f"{name}_{number}", entry) != entry:
        number += 1
    return f"{name}_{number}"

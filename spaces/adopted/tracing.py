"""Tracing: what operations a model runs, in which order, in which of its parts, and which of them follow its input."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from ..errors import SpecError
from .calls import call_name
from .leaves import is_leaf

_FACTORIES = (torch.ones, torch.zeros, torch.full, torch.arange, torch.linspace)  # called with sizes alone
BATCHES = (2, 3)  # what is the same at both does not depend on the batch, and what equals it is the batch


@final
@dataclass(frozen=True)
class Fact:
    """What is known of a value of a trace.

    Args:
        shape: of a tensor, without the batch; None: it is no tensor, or has no batch in front.
        batch: whether it is the number of inputs.
        constant: whether it is a plain value that no input changes.
        value: of a constant.
        floating: whether it is a tensor of floating point numbers.
    """

    shape: tuple[int, ...] | None = None
    batch: bool = False
    constant: bool = False
    value: Any = None
    floating: bool = False


@final
class Trace:
    """The operations of a model.

    Args:
        root: the model; in evaluation mode.
        graph: what was recorded of it.
        example: inputs `b x ...`.

    Raises:
        SpecError: if the model cannot take other batches than the one it was traced with.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, example: Tensor) -> None:
        self.root = root
        self.result = _answer(graph)
        _settle_in_place(graph, root)
        self.result = _answer(graph)
        self._order = _needed(graph, self.result)
        self.source = _source(self._order)
        runs = [self._values(rows_of(example, count)) for count in BATCHES]
        self.facts = {node: _fact(*(run[node] for run in runs)) for node in self._order}
        self._depends: dict[fx.Node, bool] = {}
        for node in self._order:
            self._depends[node] = self._follows(node)
        known = {node for node, fact in self.facts.items() if fact.batch or fact.constant}
        live = _needed(graph, self.result, known)  # what only sizes are asked of is not
        self.nodes = [node for node in live if self.depends(node) and node.op != "placeholder"]

    def depends(self, node: fx.Node) -> bool:
        """Whether a value follows from what the inputs are, and not only from how many they are."""
        return self._depends.get(node, False)

    def _follows(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return True
        fact = self.facts.get(node)
        if fact is not None and (fact.batch or fact.constant):
            return False
        return any(self.depends(each) for each in node.all_input_nodes)

    def graph_nodes(self, op: str) -> list[fx.Node]:
        """The operations of a kind that the answer follows from."""
        return [node for node in self._order if node.op == op]

    def paths(self, node: fx.Node) -> tuple[str, ...]:
        """The parts of the model that an operation lies in, from the outermost on."""
        stack = node.meta.get("nn_module_stack") or {}
        found = [str(value[0]).removeprefix("L['self']").lstrip(".") for value in stack.values()]
        if node.op == "call_module" and str(node.target) not in found:
            found.append(str(node.target))
        return tuple(path for path in found if path)

    def at(self, nodes: Sequence[fx.Node], x: Tensor) -> list[Tensor]:
        """The values of some operations for inputs, as they were before anything changed them in place."""
        kept: dict[fx.Node, Any] = dict.fromkeys(nodes)
        self._values(x, kept)
        return [kept[node] for node in nodes]

    @torch.no_grad()
    def _values(self, x: Tensor, kept: dict[fx.Node, Any] | None = None) -> dict[fx.Node, Any]:
        """The value of every operation for inputs; `kept` is filled with copies for its keys."""
        found: dict[fx.Node, Any] = {}
        for node in self._order:
            try:
                value = self._value(node, found, x)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                place = ".".join(["model", *self.paths(node)[-1:]])
                rule = f"must take any number of inputs, but fails with {len(x)} ({reason})"
                raise SpecError(place, f"{rule}; ask tensors for their sizes instead of writing them down") from None
            found[node] = value
            if kept is not None and node in kept:
                kept[node] = value.clone()
        return found

    def _value(self, node: fx.Node, found: Mapping[fx.Node, Any], x: Tensor) -> Any:
        if node.op == "placeholder":
            return x.clone()
        if node.op == "get_attr":
            return attribute(self.root, str(node.target))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: found[each])
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def attribute(root: nn.Module, path: str) -> Any:
    """What a dotted path leads to."""
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value


def rows_of(example: Tensor, count: int) -> Tensor:
    """So many inputs, repeated as often as needed."""
    return example[torch.arange(count) % len(example)]


def trace(root: nn.Module, example: Tensor) -> Trace:
    """The trace of a model in evaluation mode; symbolically, else by export.

    Raises:
        SpecError: if neither can follow it; the path is that of the part.
    """
    tracer = _Tracer()
    first: SpecError | None = None
    ways: tuple[Callable[[], fx.Graph], ...] = (
        lambda: tracer.trace(root, _defaults(root)),
        lambda: _exported(root, example),
    )
    for way in ways:
        try:
            graph = way()
        except Exception as error:  # whatever a model's code does with what it does not expect
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            place = ".".join(filter(None, ("model", tracer.failed or "")))
            rule = "must run the same operations for every input, but tracing it stops"
            remedy = "replace branches on values by torch.where, or adopt the part of the model that has none"
            first = first or SpecError(place, f"{rule} ({reason}); {remedy}")
            continue
        return Trace(root, graph, example)
    assert first is not None
    raise first from None


def _defaults(root: nn.Module) -> dict[str, Any]:
    """The arguments of a model but its first, where they have defaults."""
    parameters = list(inspect.signature(root.forward).parameters.values())[1:]
    return {each.name: each.default for each in parameters if each.default is not each.empty}


@final
class _Tracer(fx.Tracer):
    """Symbolic tracing that keeps the layers of torch whole, and knows where it failed."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=_FACTORIES)
        self._autowrap_search.append(torch)  # where models find these functions
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)  # the innermost one is left first
            raise


def _exported(root: nn.Module, example: Tensor) -> fx.Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            root, (rows_of(example, BATCHES[0]),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
        )
        made = program.module(check_guards=False)
    for name, tensor in made.named_buffers():
        if name not in dict(root.named_buffers()) and "." not in name:  # constants that exporting found
            root.register_buffer(name, tensor.detach().clone())
    return made.graph


def _source(order: Sequence[fx.Node]) -> fx.Node:
    given = [node for node in order if node.op == "placeholder"]
    if len(given) != 1:
        names = ", ".join(node.name for node in given) or "none"
        rule = "must follow from one tensor, but asks for"
        raise SpecError("model", f"{rule} {names}; wrap it in a module that makes the others")
    return given[0]


def _answer(graph: fx.Graph) -> fx.Node:
    (output,) = [node for node in graph.nodes if node.op == "output"]
    value = output.args[0]
    while isinstance(value, tuple | list | dict) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
    if not isinstance(value, fx.Node):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise SpecError(
            "model", f"must give one tensor of logits, but gives {found}; wrap it to return the logits alone"
        )
    return value


def _settle_in_place(graph: fx.Graph, root: nn.Module) -> None:
    """What reads a tensor after it was changed in place reads what the change made, so that order alone matters."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        changed = in_place_on(node, root)
        if changed is not None:
            changed.replace_all_uses_with(node, delete_user_cb=partial(_comes_after, order, order[node]))


def _comes_after(order: Mapping[fx.Node, int], at: int, user: fx.Node) -> bool:
    return order[user] > at


def in_place_on(node: fx.Node, root: nn.Module) -> fx.Node | None:
    """The value that an operation changes, if it does."""
    first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    if node.op == "call_module":
        return first if getattr(root.get_submodule(str(node.target)), "inplace", False) else None
    if node.op == "call_method":
        return first if str(node.target).endswith("_") else None
    name = call_name(node.target) if node.op == "call_function" else None
    if name is None:
        return None
    space, base = name.split(".")[:2]
    inplace = base in ("iadd", "isub", "imul", "itruediv") or (space != "operator" and base.endswith("_"))
    return first if inplace or bound(node).get("inplace") is True else None


def bound(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call of one of torch's Python functions, by name; nothing for others."""
    if not isinstance(node.target, FunctionType):
        return {}
    try:
        return dict(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments)
    except (TypeError, ValueError):
        return {}


def _needed(graph: fx.Graph, result: fx.Node, known: Collection[fx.Node] = ()) -> list[fx.Node]:
    """What the result follows from, in order, some values being known; checks and what nobody reads are left out."""
    found: set[fx.Node] = set()
    waiting = [result]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(() if node in known else node.all_input_nodes)
    return [node for node in graph.nodes if node in found]


def _fact(one: Any, other: Any) -> Fact:
    """What two values of an operation, for batches of `BATCHES`, have in common."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        batched = one.dim() > 0 and (one.shape[0], other.shape[0]) == BATCHES and one.shape[1:] == other.shape[1:]
        return Fact(tuple(one.shape[1:]) if batched else None, floating=one.is_floating_point())
    if (one, other) == BATCHES and not isinstance(one, Tensor):
        return Fact(batch=True)
    if type(one) is type(other) and isinstance(one, int | float | bool | torch.dtype | torch.device) and one == other:
        return Fact(constant=True, value=one)
    return Fact()

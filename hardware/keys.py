"""Keys of the latency table: what a part executes, never what it is called.

Two parts with the same operations on the same shapes cost the same, whatever network, module path or
weights they have. So a part is run once on an example, the operations that reach the kernels are
written down, and the key is the hash of that list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from ..spaces.errors import ShapeError
from .device import content_id
from .macs import macs_of

KEY_SCHEMA_VERSION = 1

# One executed operation: {"op": name, "in": [tensor, ...], "out": [tensor], "args": {name: value}},
# a tensor being [dtype, shape] or [dtype, shape, layout]. Plain data, canonical, never changed.
Operation = Mapping[str, object]

# Bookkeeping that never reaches a kernel, or only reserves memory.
_UNRECORDED = frozenset(
    ("detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "_has_compatible")
)
# Arguments whose value leaves the cost alone: constants of arithmetic, and what output shapes tell anyway.
_NEUTRAL = frozenset(
    """
    eps momentum alpha beta value negative_slope min max min_val max_val other threshold lambd scale upper
    lower fill_value dropout_p p device pin_memory non_blocking generator start end index padding_idx
    cudnn_enabled cudnn_enable scale_factors scales_h scales_w running_mean running_var from to
    mean std low high
    """.split()  # noqa: SIM905
)


@final
@dataclass(frozen=True)
class PartKey:
    """The content key of a part, and what can be told about its cost without running it.

    Args:
        hash: 24 hex digits over schema version, kind and operations; the batch size is no part of it.
        kind: the role, such as `segment` or `exit`.
        ops: the operations at batch 1, in order.
        macs: multiply-accumulates at batch 1.
        bytes_weights: bytes of the parameters and constants that are read.
        uncounted: names of operations that have no formula for `macs`, sorted.
    """

    hash: str
    kind: str
    ops: tuple[Operation, ...] = field(compare=False, repr=False)
    macs: int = field(compare=False)
    bytes_weights: int = field(compare=False)
    uncounted: tuple[str, ...] = field(compare=False, default=())

    def to_dict(self) -> dict[str, object]:
        """Plain data, for storage."""
        return {
            "hash": self.hash,
            "kind": self.kind,
            "ops": [dict(op) for op in self.ops],
            "macs": self.macs,
            "bytes_weights": self.bytes_weights,
            "uncounted": list(self.uncounted),
        }


def key_hash(kind: str, ops: Sequence[Operation]) -> str:
    """The hash that a key with these contents has."""
    return content_id({"version": KEY_SCHEMA_VERSION, "kind": kind, "ops": list(ops)}, 24)


def part_key(fn: Callable[..., object], inputs: tuple[Tensor, ...], *, kind: str) -> PartKey:
    """The key of `fn` on inputs like these.

    `fn` runs once without gradients, its modules in evaluation mode (and back after). Give it in the
    dtype it was built in: the dtype a device runs is part of the environment.

    Args:
        fn: a module, a method of one, or any callable on tensors.
        inputs: examples, each `b x ...`; only the first of the batch is used. Where a part's shapes depend
            on values (masks, indices), the examples must have the density that is being keyed.
        kind: the role of the part; equal operations in two roles have two keys.

    Raises:
        ShapeError: if an input has no example in it.
    """
    for tensor in inputs:
        if tensor.dim() > 0 and tensor.shape[0] == 0:
            raise ShapeError(f"each input must hold at least one example, but got shape {tuple(tensor.shape)}")
    with torch.inference_mode(False), torch.no_grad(), _evaluating(fn):
        examples = tuple(_copy(tensor[:1] if tensor.dim() > 0 else tensor) for tensor in inputs)
        with _Recorder(examples) as recorder:
            fn(*examples)
    return _key(kind, tuple(recorder.ops), recorder.macs, recorder.bytes_weights, recorder.uncounted)


def concatenate(keys: Sequence[PartKey], kind: str) -> PartKey:
    """The key of running the keyed parts one after the other, without running them.

    Weights that two of the parts share are counted twice in `bytes_weights`.
    """
    ops = tuple(op for key in keys for op in key.ops)
    uncounted = {name for key in keys for name in key.uncounted}
    macs = sum(key.macs for key in keys)
    return _key(kind, ops, macs, sum(key.bytes_weights for key in keys), uncounted)


def _copy(tensor: Tensor) -> Tensor:
    """The same values in the same strides, as an ordinary tensor of its own.

    A part may write in place, and tensors made in inference mode skip the decomposition that others
    go through.
    """
    if 0 in tensor.stride():  # expanded: there is no such memory to write to
        return tensor.clone()
    like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return like.copy_(tensor)


def _key(kind: str, ops: tuple[Operation, ...], macs: int, bytes_weights: int, uncounted: set[str]) -> PartKey:
    return PartKey(key_hash(kind, ops), kind, ops, macs, bytes_weights, tuple(sorted(uncounted)))


@contextmanager
def _evaluating(fn: Callable[..., object]) -> Iterator[None]:
    owner = fn if isinstance(fn, nn.Module) else getattr(fn, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, was in zip(modules, training, strict=True):
            module.training = was


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that reaches a kernel."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Operation] = []
        self.macs = 0
        self.bytes_weights = 0
        self.uncounted: set[str] = set()
        self._constants: dict[int, set[object]] = {}
        # Storages are named by address, so all seen are kept alive until the recording ends.
        self._kept: list[object] = []
        self._activations = {self._storage(tensor) for tensor in inputs}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        before = [_describe(tensor) for tensor in _tensors((args, kwargs))]  # in place may change shapes
        out = func(*args, **kwargs)
        self._note_storages(func, args, kwargs, out)
        if func.overloadpacket.__name__ not in _UNRECORDED:
            self._record(func, args, kwargs, before, out)
        return out

    def _record(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        before: object,
        out: object,
    ) -> None:
        # Only the first: the rest follows from it, or is a dummy (the statistics of a batch norm at rest).
        after = [_describe(tensor) for tensor in islice(_tensors(out), 1)]
        self.ops.append({"op": str(func), "in": before, "out": after, "args": _arguments(func, args, kwargs)})
        macs = macs_of(func, args, kwargs, out)
        if macs is None:
            self.uncounted.add(str(func))
        else:
            self.macs += macs

    def _note_storages(self, func: OpOverload, args: object, kwargs: object, out: object) -> None:
        for tensor in _tensors((args, kwargs)):
            storage = self._storage(tensor)
            if storage in self._activations:
                continue
            seen = self._constants.setdefault(storage, set())
            region = (tensor.storage_offset(), tensor.numel())
            # A view reads nothing yet: of a sliced weight only the slice counts.
            if not func.is_view and region not in seen:
                seen.add(region)
                self.bytes_weights += tensor.numel() * tensor.element_size()
        for tensor in _tensors(out):
            storage = self._storage(tensor)
            if storage not in self._constants:
                self._activations.add(storage)

    def _storage(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._kept.append(storage)
        return int(storage._cdata)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _describe(tensor: Tensor) -> list[object]:
    shape = list(tensor.shape)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_contiguous():
        return [dtype, shape]
    nhwc = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return [dtype, shape, "channels_last" if nhwc else "strided"]


def _arguments(func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, object]:
    """What is not a tensor and changes the cost, with the defaults that the caller left out."""
    found: dict[str, object] = {}
    for position, argument in enumerate(func._schema.arguments):
        if argument.name in _NEUTRAL:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name, argument.default_value)
        plain = _plain(value)
        # The exponent decides between a multiplication and a call of the mathematical library.
        if isinstance(value, float) and argument.name == "exponent":
            plain = repr(value)
        if plain is not None:
            found[argument.name] = plain
    return found


def _plain(value: object) -> object:
    if value is None or isinstance(value, Tensor | float | complex | torch.Generator):
        return None  # tensors stand under "in"; other floating-point values do not change what is executed
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items if any(item is not None for item in items) else None
    return str(value).removeprefix("torch.")

"""The processor this process runs on, through ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Final, final

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..spaces.errors import DeviceUnavailableError
from .device import AbstractDevice, Statistic, check_count, check_dtype, check_threads, cpu_items
from .programs import Program, with_programs

PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
_KEPT_BYTES: Final = 256 * 2**20  # of exported models, in each process


@final
@dataclass(frozen=True)
class OnnxCpu(AbstractDevice):
    """ONNX Runtime on the host processor: one session for each piece of a network and shape of its inputs.

    What runs there are modules: segments, exit heads. What runs between them in plain Python (decisions,
    temperature, compaction of batches) stays eager PyTorch on the host, in routed mode and under the stopwatch
    alike. Tensors are handed over without copies. Exporting takes seconds a piece, outside of what is timed.

    Raises:
        SpecError: if `batch` or `threads` is below 1 or `dtype` is not float32.
        DeviceUnavailableError: if `threads` exceeds the cores this process may use, or a package is missing.
    """

    kind: ClassVar[str] = "cpu_onnx"
    runtime: ClassVar[str] = "onnxruntime"
    statistic: ClassVar[Statistic] = "min"

    batch: int = 1
    threads: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_threads(self.threads)
        check_dtype(self.dtype, ("float32",))  # the exchange with NumPy has no bfloat16
        absent = [name for name in PACKAGES if find_spec(name) is None]
        if absent:
            raise DeviceUnavailableError(
                f"a {self.kind} device needs the packages {', '.join(PACKAGES)}, but {', '.join(absent)} is not"
                " installed; run `pip install dynarch[onnx]` or use a cpu device"
            )

    @property
    def torch_device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing to wait for: sessions return when they are done."""

    def hardware_items(self) -> tuple[tuple[str, str | int | bool], ...]:
        """The processor, and what exports, optimises and runs the graphs."""
        versions = (
            ("onnx", version("onnx")),
            ("onnxscript", version("onnxscript")),
            ("onnxruntime", str(_runtime().__version__)),  # several distributions provide this module
        )
        return (*cpu_items(), *versions, ("provider", "CPUExecutionProvider"))

    def prepare(self, module: nn.Module) -> nn.Module:
        """A copy of `module` whose pieces are exported when they are first called.

        Of a dynamic network, or a step of one, the children of each step are exported; decisions stay in Python.
        """
        with torch.inference_mode(False):  # weights copied inside would lack what the exporter asks for
            return with_programs(super().prepare(module), self._build)

    def _build(self, module: nn.Module, examples: tuple[Tensor, ...]) -> Program:
        options = _runtime().SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            model = _exported(module, examples)
            session = _runtime().InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # exporter and runtime have no common root of errors
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DeviceUnavailableError(
                f"a {self.kind} device runs only what torch.onnx can export, but {type(module).__name__} failed"
                f" ({reason}); use a cpu device for it"
            ) from error
        return _program(session)


def _program(session: Any) -> Program:
    names = tuple(each.name for each in session.get_inputs())

    def run(*inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        feed = {name: x.detach().contiguous().numpy() for name, x in zip(names, inputs, strict=True)}
        made = tuple(map(torch.from_numpy, session.run(None, feed)))
        return made[0] if len(made) == 1 else made

    return run


@final
class _Models:
    """Exported models by content, the last ones used: profiling comes back to each piece round after round."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._models: OrderedDict[str, bytes] = OrderedDict()

    def of(self, program: ExportedProgram) -> bytes:
        """The ONNX model of a captured graph."""
        digest = _digest(program)
        if digest not in self._models:
            self._models[digest] = _translated(program)
            while len(self._models) > 1 and sum(map(len, self._models.values())) > self._limit:
                self._models.popitem(last=False)
        self._models.move_to_end(digest)
        return self._models[digest]


_MODELS = _Models(_KEPT_BYTES)


def _exported(module: nn.Module, examples: tuple[Tensor, ...]) -> bytes:
    with torch.inference_mode(False), torch.no_grad(), quiet_exporters():
        return _MODELS.of(torch.export.export(module, examples))


def _translated(program: ExportedProgram) -> bytes:
    onnx_program = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx_program is not None
    model: bytes = onnx_program.model_proto.SerializeToString()
    return model


def _digest(program: ExportedProgram) -> str:
    """Equal for equal graphs with equal weights."""
    shapes = [str(node.meta.get("val")) for node in program.graph.nodes]
    digest = hashlib.sha256(f"{program.graph}{program.graph_signature}{shapes}".encode())
    for name, value in [*program.state_dict.items(), *program.constants.items()]:
        digest.update(f"{name}{getattr(value, 'dtype', value)}{getattr(value, 'shape', '')}".encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Exporters speak of packages that nobody asked for, and of their own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._export")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _runtime() -> Any:
    """The optional package, loaded when it is first needed."""
    return import_module("onnxruntime")

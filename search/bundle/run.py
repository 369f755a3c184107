"""Runs a bundle, the folder that this file lies in, and routes for real: work that no input asks for is not done.

It needs NumPy, and PyTorch or ONNX Runtime. From Python:

    from run import Router
    router = Router(folder)                  # or Router(folder, runtime="onnxruntime")
    logits, exit_taken = router.route(x)     # x: raw inputs, float32, b x ...

From a shell, `python run.py inputs.npy` prints one line of JSON an input. Every file is compared with its digest in
`manifest.json` before it is read; `Router(folder, sha256=...)` compares the manifest's digest with one you were told.
Nothing is unpickled: exported programs that hold pickles are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = Any  # of NumPy or PyTorch
Call = Callable[..., tuple[Array, ...]]
FORMAT = 1
RUNTIMES = {"torch": ".pt2", "onnxruntime": ".onnx"}


class Torch:
    """Exported programs and arrays of PyTorch."""

    def __init__(self, device: str, threads: int | None) -> None:
        torch: Any = importlib.import_module("torch")
        self.torch, self.device = torch, torch.device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self.asarray = lambda x: torch.as_tensor(x, dtype=torch.float32, device=self.device)
        self.numpy = lambda x: x.cpu().numpy()
        self.quiet = torch.inference_mode
        self.where = lambda mask: mask.nonzero().flatten()
        self.places = lambda mask: tuple(mask.nonzero(as_tuple=True))
        self.take = lambda x, rows: x.index_select(0, rows)
        self.zeros = lambda shape, like: like.new_zeros(shape)
        self.copy = lambda x: x.clone()
        self.count = lambda n: torch.arange(n, device=self.device)

    def load(self, content: bytes, name: str) -> Call:
        """The program, without the checks and trees that `torch.export` puts around its graph."""
        refuse_pickles(content, name)
        program = importlib.import_module("torch.export").load(io.BytesIO(content))
        if self.device.type != "cpu":
            program = importlib.import_module("torch.export.passes").move_to_device_pass(program, self.device)
        tables = {**program.state_dict, **program.constants}
        targets = [each.target for each in program.graph_signature.input_specs if each.kind.name != "USER_INPUT"]
        fixed, forward = [tables[target].detach() for target in targets], program.graph_module.forward
        return lambda *inputs: forward(*fixed, *inputs)

    def tiles(self, x: Array, side: int, step: int) -> Array:
        """A view of `b x c x h x w` as `b x rows x columns x c x side x side`."""
        return x.unfold(2, side, step).unfold(3, side, step).permute(0, 2, 3, 1, 4, 5)


class Onnx:
    """Programs of ONNX Runtime and arrays of NumPy."""

    def __init__(self, device: str, threads: int | None) -> None:
        self.runtime: Any = importlib.import_module("onnxruntime")
        self.providers = ["CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"]
        self.options = self.runtime.SessionOptions()
        self.options.log_severity_level = 3  # errors
        self.options.inter_op_num_threads, self.options.intra_op_num_threads = 1, threads or 0
        self.asarray = lambda x: np.ascontiguousarray(x, dtype=np.float32)
        self.numpy, self.quiet, self.where, self.places = np.asarray, np.errstate, np.flatnonzero, np.nonzero
        self.take = lambda x, rows: x[rows]
        self.zeros = lambda shape, like: np.zeros(shape, like.dtype)
        self.copy, self.count = np.copy, np.arange

    def load(self, content: bytes, name: str) -> Call:
        """The program in a session of its own."""
        session = self.runtime.InferenceSession(content, self.options, providers=self.providers)
        names = [each.name for each in session.get_inputs()]
        return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    def tiles(self, x: Array, side: int, step: int) -> Array:
        """As `Torch.tiles`."""
        view: Any = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(2, 3), writeable=True)
        return view[:, :, ::step, ::step].transpose(0, 2, 3, 1, 4, 5)


class Run:
    """What flows through the steps: one row for each input that is still there."""

    def __init__(self, x: Array, rows: Array | None, memory: dict[str, Array], answers: list[tuple[Any, ...]]) -> None:
        self.x = x
        self.rows = rows  # numbers of the inputs; None: all
        self.memory = memory
        self.answers = answers  # (rows, logits, exit), one each time somebody leaves
        self.done = False


class Router:
    """A trained network with its policy.

    Takes the bundle's folder, a runtime of `RUNTIMES`, a device such as `cuda`, the threads of a program (None: as the
    runtime has it), and the digest that the manifest must have, if you were told. Raises ValueError if the folder holds
    no bundle for this runtime, or a file is not what the manifest says.
    """

    def __init__(
        self,
        folder: str | Path,
        runtime: str = "torch",
        device: str = "cpu",
        threads: int | None = None,
        sha256: str = "",
    ) -> None:
        self.folder = Path(folder)
        content = (self.folder / "manifest.json").read_bytes()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"manifest.json of {folder} is not the one with digest {sha256}; fetch the bundle again")
        self.manifest: dict[str, Any] = json.loads(content)
        if self.manifest.get("format") != FORMAT:
            raise ValueError(f"the bundle must be of format {FORMAT}, but is of {self.manifest.get('format')}")
        able = self.manifest["runtimes"]
        if runtime not in able:
            raise ValueError(f"the bundle must hold programs for {runtime!r}, but holds those for {', '.join(able)}")
        self.suffix = RUNTIMES[runtime]
        self.shape = tuple(self.manifest["signature"]["input_shape"])
        self.xp: Any = Torch(device, threads) if runtime == "torch" else Onnx(device, threads)
        self.steps = self.manifest["steps"]
        self._calls: dict[tuple[str, bool], Call] = {}
        self._operations: dict[str, Callable[[Run, dict[str, Any]], None]] = {
            name: getattr(self, f"_{name}")
            for name in ("run", "keep", "answer", "exit", "choice", "mixture", "read", "jump", "tile", "fork")
        }

    def load(self, *, one: bool = True, many: bool = True) -> None:
        """Load what runs one input, many, or both; else it is loaded when it is first needed."""
        for name in self.manifest["programs"]:
            for alone in [True] * one + [False] * many:
                self._program(name, alone)

    def route(self, x: Array) -> tuple[Any, Any]:
        """Logits `b x c` and the exit that each of the raw inputs `b x ...` took; the final head is the last one."""
        if len(x) == 0 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"inputs must be b x {self.shape} with b >= 1, got {tuple(x.shape)}")
        with self.xp.quiet():
            run = Run(self.xp.asarray(x), None, {}, [])
            self._follow(run, self.steps)
            if run.answers[0][0] is None:
                _, logits, exit_index = run.answers[0]
                return self.xp.numpy(logits), np.full(len(x), exit_index)
            made = self.xp.numpy(run.answers[0][1])
            answers, taken = np.empty((len(x), made.shape[1]), made.dtype), np.full(len(x), -1)
            for rows, logits, exit_index in run.answers:
                at = self.xp.numpy(rows)
                answers[at], taken[at] = self.xp.numpy(logits), exit_index
            return answers, taken

    def _call(self, name: str, *inputs: Array) -> tuple[Array, ...]:
        return self._program(name, len(inputs[0]) == 1)(*inputs)

    def _program(self, name: str, alone: bool) -> Call:
        found = self._calls.get((name, alone))
        if found is None:
            file = self.manifest["programs"][name]["one" if alone else "many"] + self.suffix
            content = (self.folder / file).read_bytes()
            if hashlib.sha256(content).hexdigest() != self.manifest["files"].get(file):
                raise ValueError(f"{file} is not the file that the manifest describes; fetch the bundle again")
            found = self._calls[name, alone] = self.xp.load(content, file)
        return found

    def _follow(self, run: Run, steps: list[dict[str, Any]]) -> None:
        for op in steps:
            self._operations[op["op"]](run, op)
            if run.done:
                return

    def _run(self, run: Run, op: dict[str, Any]) -> None:
        for slot, size in op.get("zeros", {}).items():
            if slot not in run.memory:
                run.memory[slot] = self.xp.zeros((len(run.x), size), run.x)
        made = self._call(op["program"], *(run.x if name == "x" else run.memory[name] for name in op["takes"]))
        for name, each in zip(op["gives"], made, strict=True):
            if name == "x":
                run.x = each
            else:
                run.memory[name] = each

    def _keep(self, run: Run, op: dict[str, Any]) -> None:
        run.memory[op["as"]] = run.x

    def _answer(self, run: Run, op: dict[str, Any]) -> None:
        run.answers.append((run.rows, self._call(op["program"], run.x)[0], op["exit"]))
        run.done = True

    def _exit(self, run: Run, op: dict[str, Any]) -> None:
        logits, score, *state = self._call(op["program"], run.x, *(run.memory[name] for name in op["takes"]))
        run.memory.update(zip(op["gives"], state, strict=True))
        alone, xp = len(score) == 1, self.xp
        leave = (score.item() if alone else score) > op["threshold"]
        gone = (logits if leave else ()) if alone else xp.where(leave)
        if len(gone) == len(score):
            run.answers.append((run.rows, logits, op["exit"]))
            run.done = True
        if len(gone) in (0, len(score)):
            return
        everybody = xp.count(len(score)) if run.rows is None else run.rows
        run.answers.append((xp.take(everybody, gone), xp.take(logits, gone), op["exit"]))
        self._narrow(run, xp.where(~leave), everybody)

    def _narrow(self, run: Run, stay: Array, everybody: Array) -> None:
        """Keep some rows of everything."""
        run.x, run.rows = self.xp.take(run.x, stay), self.xp.take(everybody, stay)
        run.memory = {name: self.xp.take(kept, stay) for name, kept in run.memory.items()}

    def _gate(self, run: Run, gate: dict[str, Any], rows: Array | None = None) -> tuple[Array, ...]:
        """What a gate says of these rows; others neither decide nor remember."""
        x = run.x if rows is None else self.xp.take(run.x, rows)
        slot = gate["memory"]
        if slot is None:
            return self._call(gate["program"], x)
        state = run.memory.get(slot)
        if state is None:
            state = self.xp.zeros((len(run.x), gate["size"]), run.x)
        *made, after = self._call(gate["program"], x, state if rows is None else self.xp.take(state, rows))
        run.memory[slot] = after if rows is None else self.xp.copy(state)
        if rows is not None:
            run.memory[slot][rows] = after
        return tuple(made)

    def _choice(self, run: Run, op: dict[str, Any]) -> None:
        (picked,), xp, branches = self._gate(run, op["gate"]), self.xp, op["branches"]
        if len(picked) == 1:
            groups = {picked.item(): None}
        else:
            groups = {j: rows for j in range(len(branches)) if len(rows := xp.where(picked == j))}
        out = None
        for j, rows in groups.items():
            x = run.x if len(groups) == 1 else xp.take(run.x, rows)
            made = x if branches[j] is None else self._call(branches[j], x)[0]
            if len(groups) > 1:
                out = xp.zeros((len(picked), *made.shape[1:]), made) if out is None else out
                out[rows] = made
        run.x = made if out is None else out

    def _mixture(self, run: Run, op: dict[str, Any]) -> None:
        (weights, picked), xp, branches, out = self._gate(run, op["gate"]), self.xp, op["branches"], None
        if len(run.x) == 1:
            for place, j in enumerate(picked[0].tolist()):
                weighted = self._call(branches[j], run.x)[0] * weights[0, place]
                out = weighted if out is None else out + weighted
        for j, branch in enumerate(branches if out is None else ()):
            rows, places = xp.places(picked == j)
            if len(rows):
                made = self._call(branch, xp.take(run.x, rows))[0]
                out = xp.zeros((len(run.x), *made.shape[1:]), made) if out is None else out
                out[rows] += made * weights[rows, places].reshape(-1, *[1] * (made.ndim - 1))
        run.x = out

    def _read(self, run: Run, op: dict[str, Any]) -> None:
        self._read_some(run, op, self.xp.where(run.memory[op["slot"]][:, op["column"]] > 0))

    def _read_some(self, run: Run, op: dict[str, Any], rows: Array) -> None:
        rest = run.x[:, op["drop"] :]
        if len(rows) == len(run.x):
            rest = self._call(op["program"], run.x)[0]
        elif len(rows):
            rest = self.xp.copy(rest)
            rest[rows] = self._call(op["program"], self.xp.take(run.x, rows))[0]
        run.x = rest

    def _jump(self, run: Run, op: dict[str, Any]) -> None:
        pending = run.memory.get("pending")
        if pending is None:
            pending = self.xp.zeros((len(run.x), 1), run.x)
        rows = self.xp.where(pending[:, 0] == 0)
        self._read_some(run, op, rows)
        waiting = (pending - 1) * (pending > 0)
        if op["gate"] is not None and len(rows):
            (picked,) = self._gate(run, op["gate"], None if len(rows) == len(run.x) else rows)
            waiting[rows, 0] = self.xp.asarray(op["reach"] - picked)
        run.memory["pending"] = waiting

    def _tile(self, run: Run, op: dict[str, Any]) -> None:
        (picked,), xp, side, halo = self._gate(run, op["gate"]), self.xp, op["side"], op["halo"]
        places = xp.places(picked == 1)
        if len(places[0]) == 0:
            return
        (count, channels, height, width), (_, rows, columns) = run.x.shape, picked.shape
        full = (rows * side, columns * side)
        padded = xp.zeros((count, channels, full[0] + 2 * halo, full[1] + 2 * halo), run.x)
        padded[:, :, halo : halo + height, halo : halo + width] = run.x
        room = xp.copy(padded[:, :, halo : halo + full[0], halo : halo + full[1]])
        made = self._call(op["program"], xp.tiles(padded, side + 2 * halo, side)[places])[0]
        xp.tiles(room, side, side)[places] = made
        run.x = room[:, :, :height, :width]

    def _fork(self, run: Run, op: dict[str, Any]) -> None:
        (picked,), xp, variants = self._gate(run, op["gate"]), self.xp, op["variants"]
        groups = {j: rows for j in range(len(variants)) if len(rows := xp.where(picked == j))}
        if len(groups) == 1:
            self._follow(run, variants[next(iter(groups))])
            return
        everybody = xp.count(len(picked)) if run.rows is None else run.rows
        for j, rows in groups.items():
            sub = Run(run.x, None, run.memory, run.answers)
            self._narrow(sub, rows, everybody)
            self._follow(sub, variants[j])
        run.done = True


def refuse_pickles(content: bytes, name: str) -> None:
    """Raise ValueError unless an exported program is tensors and JSON alone: PyTorch would unpickle the rest."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for each in archive.infolist():
            inner = each.filename.partition("/")[2]
            plain = inner.startswith((".data/", "data/weights/", "data/constants/")) or "/" not in inner
            if inner.endswith("_config.json"):
                held = json.loads(archive.read(each))["config"].values()
                plain = plain and not any(item["use_pickle"] for item in held)
            if not plain and inner != "models/model.json" and each.file_size:
                raise ValueError(f"{name} must hold tensors and JSON alone, but holds {inner}; it is not loaded")


def main() -> None:
    """Route the inputs of a file of NumPy."""
    parser = argparse.ArgumentParser(description="Route inputs through the bundle that this file lies in.")
    parser.add_argument("inputs", help=".npy file of raw inputs, b x ...")
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), default="torch")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--batch", type=int, default=1, help="inputs at a time")
    asked = parser.parse_args()
    router = Router(Path(__file__).parent, asked.runtime, asked.device)
    inputs = np.load(asked.inputs, allow_pickle=False)
    for start in range(0, len(inputs), asked.batch):
        for logits, exit_index in zip(*router.route(inputs[start : start + asked.batch]), strict=True):
            row = {"predicted": int(logits.argmax()), "exit": int(exit_index), "logits": logits.tolist()}
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

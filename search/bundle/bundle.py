"""Bundle: a routed network as a folder that runs without dynarch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, final

from safetensors.torch import save

from ...evaluators.atomic import replacing
from ...evaluators.from_scratch import unaliased
from ...spaces.errors import SpecError
from ...spaces.exports import Exported
from ...spaces.network import RoutedNetwork
from . import run
from .programs import captured, onnx_file, torch_file

MANIFEST, RUNNER, WEIGHTS, PROGRAMS = "manifest.json", "run.py", "weights.safetensors", "programs"
_VERSIONS: Final = ("dynarch", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
PREPROCESSING: Final = "none: the network takes raw inputs, normalisation is part of it"


@final
@dataclass(frozen=True)
class Bundle:
    """A bundle that was written.

    Args:
        folder: where it lies.
        runtimes: that it holds programs for.
        sha256: digest of its manifest, which holds those of all other files: tell it to whoever gets the bundle.
        notes: what could not be exported, and why.
    """

    folder: Path
    runtimes: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "folder": str(self.folder),
            "runtimes": list(self.runtimes),
            "sha256": self.sha256,
            "notes": list(self.notes),
        }


def write_bundle(
    routed: RoutedNetwork,
    folder: str | Path,
    *,
    runtimes: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    weights_licence: str | None = None,
) -> Bundle:
    """Write a network and its policy so that NumPy and PyTorch or ONNX Runtime run it.

    Args:
        routed: trained, on the CPU.
        folder: new or empty.
        runtimes: of `torch` and `onnxruntime`; None: the first, and the second where it can.
        about: more for the manifest: where the network comes from, and what is claimed of it.
        weights_licence: of the weights, if you know it.

    Raises:
        SpecError: if the folder holds something, or something cannot be exported; it names what.
    """
    place = Path(folder)
    asked = _asked(runtimes)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise SpecError("export.folder", f"must be new or empty, but {place} is not; name another")
    network, policy = routed.network, routed.policy
    out = network.export(policy)
    files, notes = _programs(out, asked, strict=runtimes is not None)
    able = tuple(each for each in asked if any(name.endswith(run.RUNTIMES[each]) for name in files))
    files[WEIGHTS] = save({name: tensor.cpu().contiguous() for name, tensor in unaliased(network).items()})
    files[RUNNER] = Path(run.__file__).read_bytes()
    manifest = {
        "format": run.FORMAT,
        "preprocessing": PREPROCESSING,
        "signature": network.signature.to_mapping(),
        "classes": network.signature.classes,
        "architecture": network.architecture.to_mapping(),
        "policy": policy.to_dict(),
        "exits": network.exits,
        **(about or {}),
        "weights_licence": weights_licence,
        "versions": {"python": platform.python_version(), **_versions()},
        "runtimes": list(able),
        "programs": {name: {"one": _file(name, "one"), "many": _file(name, "many")} for name in out.programs},
        "steps": out.steps,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    text = json.dumps(manifest, indent=1, allow_nan=False).encode()
    (place / PROGRAMS).mkdir(parents=True, exist_ok=True)
    for name, content in (*files.items(), (MANIFEST, text)):  # the manifest last: without it there is no bundle
        with replacing(place / name) as stream:
            stream.write(content)
    return Bundle(place, able, hashlib.sha256(text).hexdigest(), tuple(notes))


def _asked(runtimes: Sequence[str] | None) -> tuple[str, ...]:
    if runtimes is None:
        return tuple(run.RUNTIMES)
    for index, name in enumerate(runtimes):
        if name not in run.RUNTIMES:
            known = ", ".join(run.RUNTIMES)
            raise SpecError(f"export.runtimes.{index}", f"must be one of {known}, but got {name!r}")
    if not runtimes:
        raise SpecError("export.runtimes", f"must name one of {', '.join(run.RUNTIMES)} at least, but is empty")
    return tuple(runtimes)


def _programs(out: Exported, asked: Sequence[str], *, strict: bool) -> tuple[dict[str, bytes], list[str]]:
    """The files of all programs, and what was left out; ONNX is left out as a whole unless it was asked for."""
    files: dict[str, bytes] = {}
    notes: list[str] = []
    onnx = "onnxruntime" in asked
    for name, program in out.programs.items():
        for batch in ("one", "many"):
            made, file = captured(program, name, many=batch == "many"), _file(name, batch)
            if onnx:
                try:
                    files[f"{file}.onnx"] = onnx_file(made, name)
                except SpecError as error:
                    if strict:
                        raise
                    onnx = False
                    notes.append(f"no programs for ONNX Runtime: {error}")
            if "torch" in asked:
                files[f"{file}.pt2"] = torch_file(made)
    return {name: content for name, content in files.items() if onnx or not name.endswith(".onnx")}, notes


def _file(name: str, batch: str) -> str:
    return f"{PROGRAMS}/{name}.{batch}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

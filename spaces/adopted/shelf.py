"""Shelf: folders in which adopted models lie under their ids, and the only way in which a process finds one.

shelf / <id> / structure.json
               weights.safetensors
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import SpecError
from .structure import Structure

STRUCTURE, WEIGHTS = "structure.json", "weights.safetensors"
MODELS = "models"  # the shelf in a storage
_SHELVES: dict[Path, None] = {}  # of this process, in the order in which they were named


def add_shelf(folder: Path) -> None:
    """Let this process find the models in a folder, which need not exist yet."""
    _SHELVES[folder.resolve()] = None


def put(folder: Path, structure: Structure, weights: Mapping[str, Tensor]) -> Path:
    """Write a model onto a shelf; the same one again changes nothing. Returns its folder."""
    home = folder.resolve() / structure.id
    add_shelf(folder)
    if (home / STRUCTURE).exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    partial = home / f"{WEIGHTS}.{os.getpid()}.partial"
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, partial)
    partial.replace(home / WEIGHTS)
    text = home / f"{STRUCTURE}.{os.getpid()}.partial"
    text.write_text(structure.canonical, encoding="utf-8")
    text.replace(home / STRUCTURE)  # last: a model is there as soon as its structure is
    return home


def copy_to(folder: Path, model: str) -> None:
    """Put a copy of a model onto another shelf.

    Raises:
        SpecError: if it is nowhere.
    """
    home = find(model, "model")
    if home.parent == folder.resolve() or (folder / model / STRUCTURE).exists():
        return
    (folder / model).mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, STRUCTURE):
        partial = folder / model / f"{name}.{os.getpid()}.partial"
        shutil.copyfile(home / name, partial)
        partial.replace(folder / model / name)
    add_shelf(folder)


def find(model: str, path: str) -> Path:
    """The folder of a model.

    Raises:
        SpecError: if no shelf of this process holds it.
    """
    for shelf in _SHELVES:
        if (shelf / model / STRUCTURE).exists():
            return shelf / model
    places = ", ".join(map(str, _SHELVES)) or "no folder was named"
    raise SpecError(path, f"no adopted model {model} was found ({places}); name the folder that it was adopted into")


def structure_at(home: Path, path: str) -> Structure:
    """The structure in a model's folder.

    Raises:
        SpecError: if there is none, or it is not that of the folder's name.
    """
    try:
        document = json.loads((home / STRUCTURE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpecError(path, f"must be the folder of an adopted model, but {home} is not ({reason})") from None
    found = Structure.of(document, path)
    if found.id != home.name:
        raise SpecError(path, f"must hold the model {home.name}, but holds {found.id}; adopt it again")
    return found


@lru_cache(maxsize=8)
def load(model: str) -> tuple[Structure, Mapping[str, Tensor]]:
    """Structure and weights of a model that lies on a shelf of this process; nobody may change the weights.

    Raises:
        SpecError: if it is nowhere, or damaged.
    """
    home = find(model, "model")
    found = structure_at(home, "model")
    try:
        weights = load_file(home / WEIGHTS)
    except (OSError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SpecError(
            "model", f"its weights cannot be read from {home / WEIGHTS} ({reason}); put them back"
        ) from None
    found.check_weights(weights, "weights")
    return found, weights

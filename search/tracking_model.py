"""A bundle as a model of MLflow, which `mlflow models serve` answers with."""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from ..spaces.errors import SpecError, StoreError
from .bundle.bundle import MANIFEST, Bundle
from .tracking import MLflowTracker
from .tracking_records import KIND, SEARCH_ID
from .tracking_store import remedy, shown

PLACE: Final = "models"  # below the artefacts of a search's run

import mlflow.pyfunc  # noqa: E402 - after `tracking`, which sets MLflow's environment
from mlflow import MlflowClient  # noqa: E402
from mlflow.models import ModelSignature  # noqa: E402
from mlflow.types import Schema, TensorSpec  # noqa: E402

from . import tracking_served  # noqa: E402


def save_served(bundle: Bundle, folder: Path, *, runtime: str | None = None, threads: int = 1) -> None:
    """Write the folder of an MLflow model: the bundle, code as text, and what that needs installed.

    Args:
        bundle: just written, or read with its digest.
        folder: new.
        runtime: one of the bundle's; None: its first.
        threads: of a program.

    Raises:
        SpecError: if the bundle holds no programs for the runtime.
    """
    chosen = bundle.runtimes[0] if runtime is None else runtime
    if chosen not in bundle.runtimes:
        raise SpecError("export.runtime", f"must be one of {', '.join(bundle.runtimes)}, but got {chosen!r}")
    manifest = json.loads((bundle.folder / MANIFEST).read_text())
    inputs = TensorSpec(np.dtype(np.float32), (-1, *manifest["signature"]["input_shape"]))
    needed = ("mlflow", "numpy", chosen)
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(Path(tracking_served.__file__)),
        artifacts={"bundle": str(bundle.folder.resolve())},
        signature=ModelSignature(inputs=Schema([inputs])),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in needed],
        model_config={"runtime": chosen, "threads": threads, "sha256": bundle.sha256},
    )


def register(tracker: MLflowTracker, uri: str, search_id: str, bundle: Bundle, name: str) -> str:
    """Register a bundle as the next version of a model; its URI, `models:/NAME/VERSION`.

    The model lies beside the search's own run.

    Args:
        tracker: of the store.
        uri: of the store.
        search_id: of the search that the point comes from.
        bundle: to register.
        name: of the model; made if there is none.

    Raises:
        StoreError: if MLflow cannot be written, or has no run of the search.
    """
    client = MlflowClient(uri)
    query = f"tags.`{SEARCH_ID}` = '{search_id}' and tags.`{KIND}` = 'search'"
    try:
        runs = client.search_runs([tracker.experiment_id], query, max_results=1)
        if not runs:
            raise StoreError(f"MLflow must have a run of search {search_id}, but has none; run dynarch resume first")
        run_id, place = runs[0].info.run_id, f"{PLACE}/{name}/{bundle.sha256[:12]}"
        with tempfile.TemporaryDirectory() as folder:
            save_served(bundle, Path(folder) / "model")
            client.log_artifacts(run_id, str(Path(folder) / "model"), place)
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        source = f"{runs[0].info.artifact_uri}/{place}"
        made = client.create_model_version(name, source, run_id)
        return f"models:/{name}/{made.version}"
    except StoreError:
        raise
    except Exception as error:  # MLflow's own, requests', the database's
        message = " ".join(str(error).split()).replace(uri, shown(uri))
        raise StoreError(
            f"MLflow at {shown(uri)} could not register {name}: {message[:200]}; {remedy(uri, message)}"
        ) from error

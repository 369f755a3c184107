"""What MLflow serves of a bundle. A copy of this file lies in the model, as text: neither dynarch nor a pickle does.

A request holds raw inputs; the answer of each is `prediction`, `exit_taken` and `logits`. The runner comes out of the
bundle, whose manifest must have the digest that was noted when the model was made.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, final

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


@final
class Served(PythonModel):  # type: ignore[misc]
    """Routes what is asked, for real."""

    def load_context(self, context: Any) -> None:
        """Load the runner and the programs for single inputs; those for batches follow when one comes."""
        folder = Path(context.artifacts["bundle"])
        spec = importlib.util.spec_from_file_location("dynarch_bundle_run", folder / "run.py")
        assert spec is not None
        assert spec.loader is not None
        runner = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runner)
        config = context.model_config
        self.router = runner.Router(folder, config["runtime"], threads=config["threads"], sha256=config["sha256"])
        self.router.load(many=False)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # hints would be a signature
        """Lists of `b` classes, exits and logits for `b` inputs."""
        logits, taken = self.router.route(np.asarray(model_input, np.float32))
        return {"prediction": logits.argmax(1).tolist(), "exit_taken": taken.tolist(), "logits": logits.tolist()}


set_model(Served())

"""Ray Tune as transport.

Tune places workers, retries those that die and carries messages. It decides nothing: candidates come from
the engine, verdicts come from the engine, and what happened is in the ledger. So a search is never restored
by Tune; a resumed search is a new run of Tune over what the ledger says is left.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, Stopper, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ...spaces.architecture import Architecture
from ...spaces.errors import StoreError
from ..artefacts import Artefacts
from ..candidate import LAST, Candidate, Message
from ..engine import Engine
from ..worker import Assignment, Worker

RETRIES = 2  # of a worker that died, from its last checkpoint
ROUND = 1000  # candidates after which Tune begins anew, as it keeps all that it ever ran
ROUNDS_PER_WORKER = 50  # so many at least, as workers that are done wait for the others at the end of a round


def run(engine: Engine, assignment: Assignment, folder: Path) -> None:
    """Drive the engine to its end on the connected cluster.

    Args:
        engine: what to try and what to make of it.
        assignment: what every worker must know.
        folder: where Tune keeps its own notes, which nobody needs afterwards.

    Raises:
        DynarchError: what the engine raised, as it was raised; Tune would end in one of its own.
        StoreError: if the folder cannot be written.
    """
    budget = engine.problem.budget
    shared, mishap = ray.put(assignment), Mishap()
    most = max(ROUND, ROUNDS_PER_WORKER * budget.workers)
    while not engine.exhausted and mishap.error is None:
        searcher = _EngineSearcher(engine, mishap, most)
        _round(engine, searcher, mishap, shared, folder)
        if not searcher.proposed:
            break
    if mishap.error is not None:
        raise mishap.error


def _round(engine: Engine, searcher: _EngineSearcher, mishap: Mishap, shared: Any, folder: Path) -> None:
    budget = engine.problem.budget
    resources = {"cpu": budget.cpus_per_worker, "gpu": budget.gpus_per_worker, **budget.resources}
    trainable = tune.with_resources(tune.with_parameters(_Evaluation, shared=[shared]), resources)
    with tempfile.TemporaryDirectory(prefix="tune-", dir=_made(folder.resolve())) as notes:
        tuner = Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=searcher,
                scheduler=_EngineScheduler(engine, mishap),
                num_samples=-1,
                max_concurrent_trials=budget.workers,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=RunConfig(
                name="search",
                storage_path=notes,
                stop=_EngineStopper(engine, mishap),
                failure_config=FailureConfig(max_failures=RETRIES),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # else an empty one for every trial
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            mishap.keep(StoreError(f"Ray Tune ended early ({reason}); what is recorded is kept"), cause=error)


@final
class Mishap:
    """The first error that the engine raised inside of Tune, which swallows some errors and rewrites others."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def keep(self, error: Exception, *, cause: Exception | None = None) -> None:
        """Remember it, if it is the first."""
        if self.error is None:
            error.__cause__ = cause or error.__cause__
            self.error = error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the search's folder cannot be written ({error}); make room for it") from error
    return folder


@final
class _Evaluation(tune.Trainable):  # type: ignore[misc]
    """A worker behind Tune's interface."""

    def setup(self, config: dict[str, Any], shared: list[Any] | None = None) -> None:
        assert shared is not None
        assignment: Assignment = ray.get(shared[0])
        self._own: tempfile.TemporaryDirectory[str] | None = None
        if assignment.artefacts is not None:  # nobody else sees what is written here
            self._own = tempfile.TemporaryDirectory(prefix="dynarch-candidates-")
            assignment = replace(assignment, folder=self._own.name)
        self._artefacts = Artefacts(Path(assignment.folder), assignment.artefacts)
        self._worker = Worker(assignment)
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        message = self._worker.step()
        if message.state == "failed":
            self._artefacts.remove(self._folder)
        elif message.state != "blocked":
            self._artefacts.send(self._folder)
        ended = message.state in LAST
        return {"message": json.dumps(message.to_mapping(), allow_nan=False), "done": ended}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: sessions keep their own checkpoints, named by candidate, whatever Tune does."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: see `save_checkpoint`."""

    def _take(self, config: Mapping[str, Any]) -> None:
        architecture = Architecture.from_mapping(json.loads(config["architecture"]))
        self._folder = str(config["folder"])
        self._artefacts.fetch(self._folder)
        self._worker.assign(int(config["number"]), architecture, self._folder)

    def cleanup(self) -> None:
        """Remove the folder that nobody else sees."""
        if self._own is not None:
            self._own.cleanup()


@final
class _EngineSearcher(Searcher):  # type: ignore[misc]
    """Asks the engine, so many times at the most. It has no metric and no mode: which values count is the engine's
    business."""

    def __init__(self, engine: Engine, mishap: Mishap, most: int) -> None:
        super().__init__()
        self.proposed = 0
        self._most = most
        self._engine = engine
        self._mishap = mishap
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        candidate = None
        if self._mishap.error is None and self.proposed < self._most:
            try:
                candidate = None if self._engine.exhausted else self._engine.propose()
            except Exception as error:
                self._mishap.keep(error)
        if candidate is None:
            return str(Searcher.FINISHED)
        self.proposed += 1
        self._numbers[trial_id] = candidate.number
        return _config(candidate)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is None or self._mishap.error is not None:
            return
        try:
            if error:
                self._engine.lost(number, f"its worker died {RETRIES + 1} times; out of memory is the usual reason")
            elif result is not None and "message" in result:
                self._engine.finish(_message(result))
        except Exception as mistake:
            self._mishap.keep(mistake)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a search continues from."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its experiment; the engine must not be in it


@final
class _EngineScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the engine whether to go on."""

    def __init__(self, engine: Engine, mishap: Mishap) -> None:
        super().__init__()
        self._engine = engine
        self._mishap = mishap

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        kept = False
        if self._mishap.error is None:
            try:
                kept = self._engine.report(_message(result))
            except Exception as error:
                self._mishap.keep(error)
        return str(TrialScheduler.CONTINUE if kept else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}


@final
class _EngineStopper(Stopper):  # type: ignore[misc]
    """Ends the run when the engine says so."""

    def __init__(self, engine: Engine, mishap: Mishap) -> None:
        self._engine: Engine | None = engine
        self._mishap: Mishap | None = mishap

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._engine is None or self._mishap is None:
            return False
        return self._engine.stopped or self._mishap.error is not None

    def __getstate__(self) -> dict[str, Any]:
        return {"_engine": None, "_mishap": None}


def _config(candidate: Candidate) -> dict[str, Any]:
    return {
        "number": candidate.number,
        "architecture": candidate.architecture.canonical,
        "folder": candidate.folder,
    }


def _message(result: Mapping[str, Any]) -> Message:
    return Message.from_mapping(json.loads(result["message"]))

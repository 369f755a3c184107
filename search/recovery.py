"""Recovery: after any death, bring the study and the folder of a search to what the ledger says."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..spaces.architecture import Architecture
from .candidate import Candidate, candidate_folder
from .ledger.entities import Evaluation
from .ledger.store import Ledger
from .problem import Problem
from .proposals import answered
from .samplers import Study

NOTES = "tune"  # what Ray Tune keeps for itself, below the search's folder; nobody reads it again


def unfinished_candidates(ledger: Ledger, search_id: str) -> tuple[Candidate, ...]:
    """Candidates that were begun and did not end, in order; each continues from its own checkpoint."""
    return tuple(
        Candidate(
            evaluation.number,
            Architecture.from_mapping(evaluation.architecture),
            evaluation.level,
            evaluation.optuna_trial,
        )
        for evaluation in ledger.unfinished(search_id)
    )


def reconcile_study(study: Study, ledger: Ledger, problem: Problem, search_id: str) -> None:
    """One trial for each recorded candidate, and nobody waiting for what nobody works on.

    Trials that were asked for and never recorded come to an end as orphans. A candidate whose trial is not there, as
    the study was lost or is older than the ledger, is put back from its recorded answers; the engine tells it again.
    """
    study.disown()
    evaluations = ledger.evaluations(search_id)
    trials = [trial for trial in study.trials() if not trial.extra and not trial.orphan]
    own = {trial.candidate: trial for trial in trials if trial.candidate is not None}
    unnamed = {trial.number: trial for trial in trials if trial.candidate is None and trial.state == "running"}
    for evaluation in evaluations:
        found = own.get(evaluation.number)
        if found is None and evaluation.optuna_trial in unnamed:  # recorded, and then somebody died
            found = unnamed.pop(evaluation.optuna_trial)
            study.attach(found.number, evaluation.number)
        if found is not None and found.state == "running" and study.params(found.number) != evaluation.params:
            study.orphan(found.number)  # somebody died while he put it back
            found = None
        if found is None:
            ledger.link_trial(search_id, evaluation.number, _restored(study, problem, evaluation))
        elif found.number != evaluation.optuna_trial or (evaluation.told and found.state == "running"):
            # Whoever put it back died then, or the study is a copy from before it was told.
            ledger.link_trial(search_id, evaluation.number, found.number)
    named = {evaluation.number for evaluation in evaluations}
    for trial in (*unnamed.values(), *own.values()):
        if trial.candidate not in named:
            study.orphan(trial.number)


def _restored(study: Study, problem: Problem, evaluation: Evaluation) -> int:
    """A new trial with the recorded answers."""
    asked = study.ask(evaluation.number + 1, fixed=evaluation.params)  # type: ignore[arg-type]
    answered(asked.suggester, problem, Architecture.from_mapping(evaluation.architecture))
    return study.begin(asked, candidate=evaluation.number)


def sweep(folder: Path, ledger: Ledger, search_id: str, *, checkpoint: str) -> None:
    """Remove checkpoints of candidates that ended, and what was half written or of no use when something died.

    Of candidates that are open nothing is touched: a worker that has outlived its driver may still write there.
    """
    for evaluation in ledger.evaluations(search_id):
        if evaluation.terminal:
            own = folder / candidate_folder(evaluation.number)
            for file in (own / checkpoint, *own.glob("*.partial")):
                file.unlink(missing_ok=True)
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)
    for notes in folder.glob(f"{NOTES}/*"):
        shutil.rmtree(notes, ignore_errors=True)

"""Recovery: after any death, bring study and tracking to what the ledger says."""

from __future__ import annotations

from pathlib import Path

from ..spaces.architecture import Architecture
from .candidate import Candidate
from .ledger.store import Ledger
from .samplers import Study


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


def close_orphans(study: Study, ledger: Ledger, search_id: str) -> int:
    """Fail trials that were asked for and never recorded: nobody works on them and nobody will."""
    recorded = {evaluation.optuna_trial for evaluation in ledger.evaluations(search_id)}
    orphans = [t for t in study.trials() if t.state == "running" and t.number not in recorded]
    for trial in orphans:
        study.fail(trial.number)
    return len(orphans)


def sweep_checkpoints(folder: Path, ledger: Ledger, search_id: str, *, checkpoint: str) -> None:
    """Remove checkpoints of candidates that ended, and what was half written when something died."""
    for evaluation in ledger.evaluations(search_id):
        if evaluation.terminal and evaluation.artefacts is not None:
            (folder / evaluation.artefacts / checkpoint).unlink(missing_ok=True)
    for partial in folder.glob("candidates/*/*.partial"):
        partial.unlink(missing_ok=True)

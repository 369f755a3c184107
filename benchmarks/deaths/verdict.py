"""Whether sixty asked are sixty recorded: what must hold of a search after its end, whatever died on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from mlflow import MlflowClient

from dynarch.evaluators.evaluators import evaluator
from dynarch.evaluators.from_scratch import CHECKPOINT, WEIGHTS
from dynarch.search.ledger import Evaluation, Ledger, Point
from dynarch.search.samplers import Study, TrialRecord
from dynarch.search.storage import EXPERIMENT, Storage

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
TRIAL = {"finished": "complete", "stopped": "pruned", "failed": "fail"}
SLACK_SECONDS = 1.0  # between the clock of the ledger and that of the file system


@final
@dataclass(frozen=True)
class Run:
    """A run in MLflow: whose it is (None: the whole search), and its status."""

    number: int | None
    status: str


@final
@dataclass(frozen=True)
class Remains:
    """All that a search has left behind."""

    status: str
    evaluations: tuple[Evaluation, ...]
    points: tuple[Point, ...]
    trials: tuple[TrialRecord, ...]
    runs: tuple[Run, ...]
    steps: tuple[int, ...]
    files: Mapping[str, float] = field(default_factory=dict)
    table: str | None = None


def remains(storage: Storage, search_id: str) -> Remains:
    """Read ledger, study, MLflow and folder."""
    with storage.open_ledger() as ledger:
        search, evaluations, points = ledger.search(search_id), ledger.evaluations(search_id), ledger.points(search_id)
    directions = ("maximize", "minimize")
    study = Study(storage.open_study_url(), search_id, directions=directions, sampler="random", seed=0)
    client = MlflowClient(storage.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    query = f"tags.`dynarch.search_id` = '{search_id}'"
    found = client.search_runs([experiment.experiment_id], query, max_results=1000)
    parents = [each for each in found if each.data.tags["dynarch.kind"] == "search"]
    history = client.get_metric_history(parents[0].info.run_id, "hypervolume") if parents else []
    folder = storage.search_folder(search_id)
    return Remains(
        status=search.status,
        evaluations=evaluations,
        points=points,
        trials=tuple(study.trials()),
        runs=tuple(_run(each) for each in found),
        steps=tuple(metric.step for metric in history),
        files={str(each.relative_to(folder)): each.stat().st_mtime for each in folder.rglob("*") if each.is_file()},
        table=search.table_version,
    )


def _run(run: Any) -> Run:
    tags = run.data.tags
    return Run(int(tags["dynarch.number"]) if tags["dynarch.kind"] == "candidate" else None, str(run.info.status))


def violations(left: Remains, asked: int, endings: Mapping[int, object]) -> tuple[str, ...]:
    """Everything that should not be.

    Args:
        left: what the search left behind.
        asked: how many candidates it was to evaluate.
        endings: how candidates ended, as seen while the search ran.
    """
    return (
        *_of_ledger(left, asked, endings),
        *_of_study(left),
        *_of_tracking(left, asked),
        *_of_folder(left),
    )


def _of_ledger(left: Remains, asked: int, endings: Mapping[int, object]) -> Iterator[str]:
    numbers = [each.number for each in left.evaluations]
    if left.status != "finished":
        yield f"the search is {left.status}"
    if numbers != list(range(asked)):
        yield f"{asked} asked, but recorded are {numbers}"
    if len({each.architecture_id for each in left.evaluations}) != len(numbers):
        yield "an architecture is recorded twice"
    for each in left.evaluations:
        if not each.terminal:
            yield f"candidate {each.number} is {each.state} in the ledger"
        elif not (each.told and each.logged):
            yield f"candidate {each.number} is told {each.told}, logged {each.logged}"
    now = {each.number: ending(each) for each in left.evaluations}
    for number, before in endings.items():
        if now.get(number) != before:
            yield f"candidate {number} ended twice: {before}, then {now.get(number)}"


def ending(evaluation: Evaluation) -> tuple[object, ...]:
    """What a second training would change."""
    return evaluation.state, evaluation.attempts, evaluation.finished_at, evaluation.seconds


def _of_study(left: Remains) -> Iterator[str]:
    own = [trial for trial in left.trials if not trial.extra and not trial.orphan]
    unfinished = [trial.number for trial in left.trials if trial.state in ("running", "waiting")]
    if unfinished:
        yield f"trials {unfinished} of the study have not ended"
    named = Counter(trial.candidate for trial in own if trial.candidate is not None)
    for each in left.evaluations:
        if named[each.number] != 1:
            yield f"candidate {each.number} has {named[each.number]} trials"
        states = [trial.state for trial in own if trial.candidate == each.number]
        if states != [TRIAL.get(each.state)]:
            yield f"candidate {each.number} is {each.state} in the ledger and {states} in the study"
    strangers = sorted(named.keys() - {each.number for each in left.evaluations})
    if strangers:
        yield f"the study has trials of candidates {strangers}, which the ledger does not know"


def _of_tracking(left: Remains, asked: int) -> Iterator[str]:
    parents = [run for run in left.runs if run.number is None]
    if [run.status for run in parents] != ["FINISHED"]:
        yield f"the runs of the search are {[run.status for run in parents]} in MLflow"
    runs = Counter(run.number for run in left.runs if run.number is not None)
    for each in left.evaluations:
        statuses = [run.status for run in left.runs if run.number == each.number]
        if statuses != [STATUS.get(each.state)]:
            yield f"candidate {each.number} is {each.state} in the ledger and {statuses} in MLflow"
    if set(runs) - {each.number for each in left.evaluations}:
        yield "MLflow has runs of candidates that the ledger does not know"
    if sorted(left.steps) != list(range(1, asked + 1)):
        yield f"the steps of the hypervolume are {sorted(left.steps)}"


def _of_folder(left: Remains) -> Iterator[str]:
    litter = [name for name in left.files if name.endswith((CHECKPOINT, ".partial")) or name.startswith("tune/")]
    if litter:
        yield f"left behind: {', '.join(sorted(litter)[:3])}"
    for each in left.evaluations:
        if not evaluator(each.evaluator).leaves_networks:
            continue
        written = left.files.get(f"{each.artefacts}/{WEIGHTS}")
        if each.state == "finished" and (written is None or written > (each.finished_at or 0.0) + SLACK_SECONDS):
            yield f"the weights of candidate {each.number} are absent or younger than its end"


def compared(left: Remains, undisturbed: Remains) -> str:
    """`same` as the undisturbed search, `other table` if latencies were measured anew in between, or what differs."""
    if left.table != undisturbed.table:
        return "other table"
    for what, mine, theirs in _pairs(left, undisturbed):
        if mine != theirs:
            return f"differs in {what}"
    return "same"


def _pairs(left: Remains, other: Remains) -> Sequence[tuple[str, object, object]]:
    return [(what, read(left), read(other)) for what, read in _READINGS]


def _asked(left: Remains) -> object:
    return [(each.number, each.architecture_id, each.level) for each in left.evaluations]


def _outcomes(left: Remains) -> object:
    return [(each.state, each.cause, each.epochs_done, each.metrics) for each in left.evaluations]


def _all_points(left: Remains) -> object:
    return [(each.number, each.index, each.policy, each.metrics) for each in left.points]


def _front(left: Remains) -> object:
    return [(each.number, each.index, each.test) for each in left.points if each.front]


def _told(left: Remains) -> object:
    """Of candidates; whether a question is answered by a known one depends on whether that has ended by then."""
    own = [trial for trial in left.trials if not trial.orphan and trial.candidate is not None]
    return Counter((trial.candidate, trial.state, trial.extra) for trial in own)


_READINGS = (
    ("what was asked", _asked),
    ("outcomes", _outcomes),
    ("operating points", _all_points),
    ("the front", _front),
    ("what the study was told", _told),
)


def endings_of(ledger: Ledger, search_id: str) -> dict[int, object]:
    """How candidates ended, of those that have."""
    return {each.number: ending(each) for each in ledger.evaluations(search_id) if each.terminal}

"""The chaos benchmark: every breach of what must hold is found, and kills are counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynarch.benchmarks.chaos import kills
from dynarch.benchmarks.deaths.verdict import Remains, Run, compared, ending, violations
from dynarch.benchmarks.rows import Rows
from dynarch.search.ledger import Evaluation, Point
from dynarch.search.samplers import TrialRecord

SETTINGS = {"trials": 2}


def evaluation(number: int, state: Any = "finished") -> Evaluation:
    return Evaluation(
        id=number,
        search_id="s",
        number=number,
        architecture_id=f"a{number}",
        architecture={},
        params={},
        level=0.5,
        seed=0,
        fidelity=3,
        evaluator="from_scratch",
        state=state,
        cause=None,
        epochs_done=3,
        attempts=1,
        seconds=1.0,
        metrics={"exit_accuracy": [0.5]},
        curve=None,
        artefacts=f"candidates/0000{number}" if state == "finished" else None,
        optuna_trial=number,
        told=True,
        mlflow_run_id="r",
        logged=True,
        created_at=1.0,
        finished_at=10.0,
    )


WHOLE = Remains(
    status="finished",
    evaluations=(evaluation(0), evaluation(1, "stopped")),
    points=(Point(1, 0, 0, {}, {"metrics": {"accuracy": 0.5}}, True, {"accuracy": 0.5}, None),),
    trials=(
        TrialRecord(0, "complete", 0, False),
        TrialRecord(1, "pruned", 1, False),
        TrialRecord(2, "complete", 0, True),  # another point of candidate 0
        TrialRecord(3, "fail", None, False, True),  # of a driver that died
    ),
    runs=(Run(None, "FINISHED"), Run(0, "FINISHED"), Run(1, "KILLED")),
    steps=(1, 2),
    files={"candidates/00000/weights.safetensors": 9.0, "report/report.json": 12.0},
    table="t",
)


def with_evaluation(**changes: Any) -> Callable[[Remains], Remains]:
    return lambda left: replace(left, evaluations=(replace(left.evaluations[0], **changes), left.evaluations[1]))


def with_trial(*more: TrialRecord) -> Callable[[Remains], Remains]:
    return lambda left: replace(left, trials=(*left.trials, *more))


def with_file(name: str, at: float) -> Callable[[Remains], Remains]:
    return lambda left: replace(left, files={**left.files, name: at})


BREACHES: dict[str, tuple[Callable[[Remains], Remains], str]] = {
    "open search": (lambda left: replace(left, status="running"), "the search is running"),
    "lost": (lambda left: replace(left, evaluations=left.evaluations[:1]), "2 asked, but recorded are [0]"),
    "twice": (with_evaluation(architecture_id="a1"), "an architecture is recorded twice"),
    "open": (with_evaluation(state="running"), "candidate 0 is running in the ledger"),
    "untold": (with_evaluation(told=False), "candidate 0 is told False, logged True"),
    "trained again": (with_evaluation(attempts=2), "candidate 0 ended twice"),
    "running trial": (with_trial(TrialRecord(4, "running", None, False)), "trials [4] of the study have not ended"),
    "queued trial": (with_trial(TrialRecord(4, "waiting", None, False)), "trials [4] of the study have not ended"),
    "two trials": (with_trial(TrialRecord(4, "complete", 0, False)), "candidate 0 has 2 trials"),
    "stranger": (with_trial(TrialRecord(4, "complete", 7, False)), "the study has trials of candidates [7]"),
    "told otherwise": (with_evaluation(state="failed"), "candidate 0 is failed in the ledger and ['complete']"),
    "no run": (lambda left: replace(left, runs=left.runs[:2]), "candidate 1 is stopped in the ledger and []"),
    "two runs": (lambda left: replace(left, runs=(*left.runs, left.runs[1])), "['FINISHED', 'FINISHED'] in MLflow"),
    "strange run": (lambda left: replace(left, runs=(*left.runs, Run(9, "FINISHED"))), "MLflow has runs of"),
    "two parents": (lambda left: replace(left, runs=(*left.runs, left.runs[0])), "the runs of the search are"),
    "lost step": (lambda left: replace(left, steps=(1,)), "the steps of the hypervolume are [1]"),
    "checkpoint": (with_file("candidates/00001/checkpoint.pt", 1.0), "left behind: candidates/00001/checkpoint.pt"),
    "half a file": (with_file("candidates/00001/tune.npz.7.partial", 1.0), "left behind: candidates/00001/tune.npz"),
    "notes of Tune": (with_file("tune/a/b", 1.0), "left behind: tune/a/b"),
    "weights too young": (with_file("candidates/00000/weights.safetensors", 12.0), "the weights of candidate 0"),
}


def endings(left: Remains) -> dict[int, object]:
    return {each.number: ending(each) for each in left.evaluations}


def test_a_whole_search_violates_nothing() -> None:
    assert violations(WHOLE, 2, endings(WHOLE)) == ()


@pytest.mark.parametrize(("breach", "said"), BREACHES.values(), ids=BREACHES)
def test_every_breach_is_found(breach: Callable[[Remains], Remains], said: str) -> None:
    found = violations(breach(WHOLE), 2, endings(WHOLE))
    assert any(said in text for text in found), found


def test_a_front_is_compared_where_the_latencies_are_the_same() -> None:
    better = replace(WHOLE.points[0], test={"accuracy": 0.6})
    assert compared(WHOLE, WHOLE) == "same"
    assert compared(replace(WHOLE, points=(better,)), WHOLE) == "differs in the front"
    assert compared(replace(WHOLE, points=(better,), table="u"), WHOLE) == "other table"
    assert compared(replace(WHOLE, trials=WHOLE.trials[:2]), WHOLE) == "differs in what the study was told"
    orphan = TrialRecord(9, "fail", None, False, True)
    assert compared(replace(WHOLE, trials=(*WHOLE.trials, orphan)), WHOLE) == "same"


def test_kills_are_counted_by_kind_and_database(tmp_path: Path) -> None:
    row = {"kind": "worker", "database": "sqlite", "kills": ["1.0 s: a", "2.0 s: b"]}
    Rows(tmp_path / "rows.jsonl", SETTINGS).add(row)
    Rows(tmp_path / "rows.jsonl", SETTINGS).add({**row, "kind": "driver"})
    Rows(tmp_path / "rows.jsonl", {"trials": 3}).add(row)
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write('{"kind": "worker", "data')  # the program died while it wrote
    kept = Rows(tmp_path / "rows.jsonl", SETTINGS)
    assert kills(kept, "worker", "sqlite") == 2
    assert kills(kept, "worker", "postgresql") == 0

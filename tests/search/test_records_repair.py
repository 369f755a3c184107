"""What MLflow missed or had twice, and how it is brought to what the ledger says."""

from __future__ import annotations

from dynarch import Problem
from dynarch.search.ledger import Ledger
from dynarch.search.records import RETRY_SECONDS
from dynarch.tests.search.recorded import POINTS, Open, Outages, add, history, known, points_of, seen


def test_what_waited_is_written_as_soon_as_mlflow_is_back(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages
) -> None:
    """With the next candidate that ends, and not only with the report."""
    records = outages.records(ledger, problem, search_id)
    records.start()
    for number in (1, 2):
        records.candidate(add(ledger, problem, search_id, number), points_of(ledger, search_id, number))
    outages.there, outages.now = True, outages.now + RETRY_SECONDS
    records.candidate(add(ledger, problem, search_id, 3), points_of(ledger, search_id, 3))
    assert seen(search_id).numbers == [1, 2, 3]
    assert [step for step, _ in history(search_id, "hypervolume")] == [1, 2, 3]
    assert len(outages.warnings) == 1


def test_runs_are_brought_to_what_the_ledger_says(
    ledger: Ledger, problem: Problem, search_id: str, outages: Outages, open_tracker: Open
) -> None:
    """One run was lost, one was cut short, one is there twice, and so is the search, as a request was sent again."""
    outages.there = True
    records = outages.records(ledger, problem, search_id)
    records.start()
    for number in (1, 2, 3):
        records.candidate(add(ledger, problem, search_id, number), points_of(ledger, search_id, number))
    records.flush()
    found = seen(search_id)
    parent = found.parents[0].info.run_id
    runs = {int(run.data.tags["dynarch.number"]): run for run in found.children}
    found.client.delete_run(runs[1].info.run_id)
    found.client.update_run(runs[2].info.run_id, status="RUNNING")
    for double in (runs[3], found.parents[0]):
        tags = {name: value for name, value in double.data.tags.items() if not name.startswith("mlflow.run")}
        found.client.create_run(open_tracker().experiment_id, start_time=1, tags=tags)
    again = outages.records(ledger, problem, search_id)
    again.start()
    again.reconcile()
    again.finish("finished")
    now = seen(search_id)
    assert [run.info.run_id for run in now.parents] == [parent]
    assert (now.numbers, now.states) == ([1, 2, 3], {"FINISHED"})
    for run in now.children:
        number = int(run.data.tags["dynarch.number"])
        assert run.data.metrics["accuracy"] == POINTS[-1][0]
        assert known(ledger, search_id, number).mlflow_run_id == run.info.run_id
        assert number == 1 or run.info.run_id == runs[number].info.run_id

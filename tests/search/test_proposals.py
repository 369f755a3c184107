"""Proposals: the static networks first, nothing twice, nothing hopeless, and a new one as long as there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dynarch.search.candidate import Candidate
from dynarch.search.ledger import Ledger, NewPoint
from dynarch.search.problem import Constraint, Problem
from dynarch.search.proposals import Proposer, at_level
from dynarch.search.samplers import LEVEL, Study
from dynarch.tests.inline_searches import (
    FOUR,
    ID,
    SPACE,
    Driven,
    architecture_of,
    book_of,
    quick_folder,
    small_data,
    small_problem,
)

SIGNATURE = small_data().signature


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


@contextmanager
def proposing(folder: Path, problem: Problem) -> Iterator[tuple[Proposer, Ledger, Study]]:
    search = Driven(folder, problem)
    with search.ledger() as ledger:
        study = search.study()
        book = book_of(problem.space)
        yield Proposer(problem, ID, ledger=ledger, study=study, book=book, clock=lambda: 7.0), ledger, study


@pytest.mark.parametrize(
    ("level", "count", "index"),
    [(0.0, 5, 0), (1.0, 5, 4), (0.5, 5, 2), (0.3, 5, 1), (0.49, 1, 0), (0.5, 3, 1), (0.99, 2, 1), (0.01, 24, 0)],
)
def test_a_level_names_a_point_by_latency(level: float, count: int, index: int) -> None:
    assert at_level(level, count) == index


def test_the_static_networks_come_first_at_their_full_work(folder: Path) -> None:
    with proposing(folder, small_problem()) as (proposer, ledger, study):
        first = [proposer.propose() for _ in range(2)]
        assert [each.architecture for each in first if each] == list(SPACE.baselines(SIGNATURE))
        for number, each in enumerate(first):
            assert each is not None
            assert (each.number, each.level) == (number, 1.0)
            assert each.trial is not None
            params = study.params(each.trial)
            assert {name.split(".")[0] for name in params} <= {"backbone", "residual", "training", LEVEL}
            assert (
                SPACE.replay({k: v for k, v in params.items() if k != LEVEL} | _no_exits(), SIGNATURE)
                == each.architecture
            )
        third = proposer.propose()
        assert third is not None
        assert proposer.asked == len(ledger.evaluations(ID)) == 3


def _no_exits() -> dict[str, bool]:
    """The answers that leave a network of three blocks without exits."""
    return {"early_exit.after.0": False, "early_exit.after.1": False}


def test_what_is_proposed_is_recorded_before_anything_else_happens_to_it(folder: Path) -> None:
    with proposing(folder, small_problem()) as (proposer, ledger, study):
        for _ in range(4):
            candidate = proposer.propose()
            assert candidate is not None
            (*_, recorded) = ledger.evaluations(ID)
            assert architecture_of(recorded) == candidate.architecture
            assert recorded.architecture_id == candidate.architecture.id
            assert (recorded.number, recorded.level, recorded.optuna_trial) == (
                candidate.number,
                candidate.level,
                candidate.trial,
            )
            assert (recorded.state, recorded.seed, recorded.fidelity, recorded.created_at) == ("running", 0, 4, 7.0)
            assert candidate.trial is not None
            assert recorded.params == study.params(candidate.trial)
            trial = next(trial for trial in study.trials() if trial.number == candidate.trial)
            assert (trial.state, trial.candidate) == ("running", candidate.number)


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_every_architecture_is_proposed_once_until_there_are_no_more(
    folder: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four networks: no sampler may stop before it had them all, nor give one twice, nor ask for ever."""
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 3)
    with proposing(folder, small_problem(space=FOUR, sampler=sampler)) as (proposer, ledger, study):
        proposed = [proposer.propose() for _ in range(4)]
        assert {each.architecture for each in proposed if each} == {made for _, made in FOUR.enumerate(SIGNATURE)}
        trials = len(list(study.trials()))
        assert proposer.propose() is None
        assert len(list(study.trials())) - trials <= 3  # looking around asks the study nothing
        assert len(ledger.evaluations(ID)) == 4


def finish(ledger: Ledger, candidate: Candidate, latencies: tuple[float, ...]) -> None:
    points = [
        NewPoint(
            {"decision": "max_prob", "thresholds": [0.5], "setting": {}},
            {"metrics": {"accuracy": latency / 10, "latency_ms@cpu": latency}, "certify_accuracy": 0.5},
        )
        for latency in latencies
    ]
    ledger.finish(ID, candidate.number, state="finished", finished_at=2.0, epochs_done=4, seconds=1.0, points=points)


def test_a_known_architecture_costs_nothing_and_is_told_what_is_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four are known and finished; whatever is asked next is answered with the point at its level."""
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 12)
    told: list[tuple[float, tuple[float, ...]]] = []
    tell = Study.tell

    def listen(study: Study, number: int, values: tuple[float, ...], constraints: dict[str, float]) -> None:
        told.append((float(study.params(number)[LEVEL]), tuple(values)))
        tell(study, number, values, constraints)

    with proposing(folder, small_problem(space=FOUR, sampler="random")) as (proposer, ledger, study):
        for _ in range(4):
            candidate = proposer.propose()
            assert candidate is not None
            finish(ledger, candidate, (1.0, 2.0, 4.0))
        monkeypatch.setattr(Study, "tell", listen)
        asked = proposer.asked
        assert proposer.propose() is None
        assert proposer.asked == asked == 4
        assert len(ledger.evaluations(ID)) == 4
    assert len(told) == 12
    for level, values in told:
        latency = (1.0, 2.0, 4.0)[round(level * 2)]
        assert values == (latency / 10, latency)
    assert len({values for _, values in told}) == 3
    assert {trial.state for trial in study.trials() if trial.candidate is None} == {"complete"}


def test_a_known_architecture_without_points_is_a_failed_trial(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is under way, was stopped or failed: there is nothing to tell."""
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 5)
    with proposing(folder, small_problem(space=FOUR, sampler="random")) as (proposer, _, study):
        while proposer.propose() is not None:
            pass
        states = [trial.state for trial in study.trials() if trial.candidate is None]
        assert states
        assert set(states) == {"fail"}


def test_a_proposer_that_is_made_anew_knows_what_was_proposed(folder: Path) -> None:
    problem = small_problem(sampler="random")
    (folder / "whole").mkdir()
    with proposing(folder / "whole", problem) as (proposer, _, _):
        whole = [proposer.propose() for _ in range(6)]
    (folder / "pieces").mkdir()
    pieces = []
    for _ in range(6):
        with proposing(folder / "pieces", problem) as (proposer, _, _):
            pieces.append(proposer.propose())
    assert pieces == whole


def test_the_hopeless_are_refused_without_a_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the narrow half of the 28 networks has so few weights; the wide static baseline is refused as well.

    Width 2 has convolutions of 18 + 36 + 36 + 72 + 144 + 8 + 288 + 576 + 32 weights, 2 (2 + 2 + 2 + 4 + 4 + 4 +
    8 + 8 + 8) in normalisation and 8 * 3 + 3 in the head: 1321, and with both exits 9 + 15 more. Width 4 has
    nearly four times as many.
    """
    monkeypatch.setattr("dynarch.search.proposals.REFUSALS", 5)
    problem = small_problem(constraints=(Constraint("parameters", maximum=1345),), sampler="random")
    with proposing(folder, problem) as (proposer, ledger, study):
        found = []
        while (candidate := proposer.propose()) is not None:
            found.append(candidate)
        assert {each.architecture.backbone["width"] for each in found} == {2}
        assert len(found) == 14  # half of the 28
        assert len(ledger.evaluations(ID)) == 14
        assert {trial.state for trial in study.trials() if trial.candidate is None} == {"fail"}

"""Shown front: what stands beside a report shows the same front: Optuna's dashboard, and the page of pictures."""

from __future__ import annotations

from pathlib import Path

from .gallery import write_pictures
from .ledger.store import Ledger
from .open_study import open_study
from .problem import Problem
from .proposals import numbers


def show_front(problem: Problem, search_id: str, *, ledger: Ledger, folder: Path, study_url: str) -> dict[str, Path]:
    """Tell the study of the front, and draw the pictures; the files written, by name. Twice changes nothing more.

    Raises:
        StoreError: if the study's database cannot be used.
        OSError: if a file cannot be written.
    """
    tell_front(problem, search_id, ledger=ledger, study_url=study_url)
    return write_pictures(problem, search_id, ledger=ledger, folder=folder, study_url=study_url)


def tell_front(problem: Problem, search_id: str, *, ledger: Ledger, study_url: str) -> None:
    """Name the objectives in the study, and add the members of the front that no trial stands for.

    A study hears of a few points of each candidate, which is enough for a sampler, and too little for a dashboard.
    """
    study = open_study(problem, study_url, search_id)
    study.name_objectives([reference.key for reference in problem.references])
    trials = {each.number: each.optuna_trial for each in ledger.evaluations(search_id)}
    points = ledger.points(search_id)
    last = {point.number: point.index for point in points}  # of each candidate, as points are in order
    for point in points:
        trial = trials[point.number]
        if not point.front or trial is None:
            continue
        metrics, level = numbers(point), point.index / max(last[point.number], 1)
        values, excesses = problem.values(metrics), problem.excesses(metrics)
        if tuple(values) not in study.told(point.number):
            study.add_extra(trial, level=level, values=values, constraints=excesses)

"""What other processes do to a ledger in the tests, in a module that they can import."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from sqlalchemy import text
from sqlalchemy.orm import Session

from dynarch.search.ledger import Evaluation, Ledger, NewPoint

POINTS = (NewPoint({"threshold": 0.9}, {"error": 0.1}), NewPoint({"threshold": 0.5}, {"error": 0.2}))


def propose(
    ledger: Ledger, number: int, *, architecture: str | None = None, search: str = "s", fidelity: int = 3
) -> Evaluation:
    """Propose architecture `a<number>`, or the one named, with seed 7."""
    return ledger.propose(
        search,
        number=number,
        architecture_id=architecture or f"a{number}",
        architecture={"backbone": "cnn", "widths": [8, 16]},
        params={"early_exit.count": 2, "lr": 0.1},
        level=0.5,
        seed=7,
        fidelity=fidelity,
        evaluator="from_scratch",
        created_at=10.0 + number,
    )


def finish(ledger: Ledger, number: int, *, points: Sequence[NewPoint] = POINTS, search: str = "s") -> bool:
    """Finish an evaluation with these points; whether this call was the first to."""
    return ledger.finish(
        search,
        number,
        state="finished",
        finished_at=20.0,
        epochs_done=3,
        seconds=1.5,
        metrics={"error": 0.1},
        curve=[{"epoch": 1, "loss": 2.0}],
        points=points,
        artefacts=f"candidates/{number}",
    )


def race(url: str, writer: str, candidates: int) -> tuple[list[int], list[int], list[bool]]:
    """Propose, judge and finish the same candidates as another writer, each in this writer's own version.

    Returns:
        The numbers that the candidates got, those that this writer finished, and the verdicts that stand.
    """
    with Ledger.open(url) as ledger:
        numbers, won, verdicts = [], [], []
        for index in range(candidates):
            mine = 2 * index + int(writer)
            number = propose(ledger, mine, architecture=f"a{index}").number
            rung = ledger.record_rung("s", number, 1, points=[[float(writer)]], kept=writer == "1")
            done = ledger.finish(
                "s",
                number,
                state="finished",
                finished_at=20.0,
                epochs_done=3,
                seconds=1.0,
                metrics={"writer": writer},
                points=[NewPoint({"writer": writer}, {})] * 3,
            )
            numbers.append(number)
            verdicts.append(rung.kept)
            if done:
                won.append(number)
    return numbers, won, verdicts


def take(url: str, holder: str) -> bool:
    """Try to take the lease of search `s`; whether it worked."""
    with Ledger.open(url) as ledger:
        try:
            ledger.acquire("s", holder, now=100.0, ttl_seconds=60.0)
        except Exception as error:
            if type(error).__name__ != "SearchBusyError":
                raise
            return False
        return True


def stall_inside(ready: Connection, url: str) -> None:
    """Write half of what finishing evaluation 0 writes, say so, and never commit."""

    def stall(session: Session) -> None:
        session.execute(text("UPDATE dynarch_evaluation SET state = 'finished', metrics = '{}'"))
        session.execute(text("UPDATE dynarch_search SET status = 'finished'"))
        ready.send("inside")
        time.sleep(600)

    with Ledger.open(url) as ledger:
        ledger.database.write(stall)

"""Operating points in the ledger: the front, what the test split said once, what a device measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from ...hardware.database import plain_json
from ...spaces.errors import StoreError
from .entities import Point, PointKey
from .records import AbstractRecords
from .rows import EvaluationRow, PointRow

_KEYS_A_QUERY = 500  # SQLite allows a limited number of parameters in one statement


class AbstractPointRecords(AbstractRecords):
    """The part of the ledger that keeps operating points."""

    def points(self, search_id: str, *, number: int | None = None, front_only: bool = False) -> tuple[Point, ...]:
        """The operating points of the search by evaluation and index, of one evaluation, or those of the front."""
        wanted = select(PointRow).filter_by(search_id=search_id)
        if number is not None:
            wanted = wanted.where(PointRow.number == number)
        if front_only:
            wanted = wanted.where(PointRow.front)

        def work(session: Session) -> tuple[Point, ...]:
            rows = session.scalars(wanted.order_by(PointRow.number, PointRow.index))
            return tuple(row.entity() for row in rows)

        return self.database.read(work)

    def mark_front(self, search_id: str, members: Iterable[PointKey]) -> None:
        """Make these points the front of the search, instead of those that were.

        Raises:
            StoreError: if a point is unknown, or its evaluation did not finish: full fidelity only.
        """
        keys = sorted(set(members))

        def work(session: Session) -> None:
            self._search_row(session, search_id)
            found = self._points_of(session, search_id, keys)
            partial = self._partly_trained(session, search_id, {number for number, _ in keys})
            if partial:
                raise StoreError(
                    f"only points of finished evaluations may be on a front, but in search {search_id!r}"
                    f" these did not finish: {', '.join(map(str, partial))}; leave them out"
                )
            session.execute(update(PointRow).filter_by(search_id=search_id, front=True).values(front=False))
            for row in found.values():
                row.front = True

        self.database.write(work)

    def open_test(self, search_id: str, at: float) -> bool:
        """Note that the test split is used from now on; False if it had been opened before."""

        def work(session: Session) -> bool:
            row = self._search_row(session, search_id)
            if row.test_opened_at is not None:
                return False
            row.test_opened_at = at
            return True

        return self.database.write(work)

    def score_points(self, search_id: str, scores: Mapping[PointKey, Mapping[str, object]]) -> None:
        """Record what the test split says of these points: all of them or, on any mistake, none.

        Raises:
            StoreError: if the test split has not been opened, a point is unknown, or one has been scored: the
                test split is used once.
        """
        plain = {key: plain_json(score, f"test of point {key}") for key, score in scores.items()}

        def work(session: Session) -> None:
            if self._search_row(session, search_id).test_opened_at is None:
                raise StoreError(
                    f"the test split of search {search_id!r} has not been opened; call open_test when it ends"
                )
            found = self._points_of(session, search_id, sorted(plain))
            scored = [key for key, row in found.items() if row.test is not None]
            if scored:
                raise StoreError(
                    f"the test split is used once, but these points of search {search_id!r} have their score:"
                    f" {', '.join(map(str, scored))}; read it instead of scoring again"
                )
            for key, row in found.items():
                row.test = plain[key]

        self.database.write(work)

    def record_measured(self, search_id: str, measured: Mapping[PointKey, Mapping[str, object]]) -> None:
        """Record what devices measured of these points; a later measurement replaces an earlier one.

        Raises:
            StoreError: if a point is unknown.
        """
        plain = {key: plain_json(value, f"measurement of point {key}") for key, value in measured.items()}

        def work(session: Session) -> None:
            self._search_row(session, search_id)
            for key, row in self._points_of(session, search_id, sorted(plain)).items():
                row.measured = plain[key]

        self.database.write(work)

    def _points_of(self, session: Session, search_id: str, keys: Iterable[PointKey]) -> dict[PointKey, PointRow]:
        found: dict[PointKey, PointRow] = {}
        missing: list[PointKey] = []
        for some in _in_chunks(keys):
            wanted = select(PointRow).filter_by(search_id=search_id)
            rows = session.scalars(wanted.where(tuple_(PointRow.number, PointRow.index).in_(some)))
            found |= {(row.number, row.index): row for row in rows}
            missing += [key for key in some if key not in found]
        if missing:
            raise StoreError(
                f"search {search_id!r} has no points {', '.join(map(str, missing[:10]))}; a point is a pair"
                " (number of the evaluation, index there), as points() lists them"
            )
        return found

    def _partly_trained(self, session: Session, search_id: str, numbers: set[int]) -> list[int]:
        states = select(EvaluationRow.number).filter_by(search_id=search_id)
        others = session.scalars(states.where(EvaluationRow.state != "finished"))
        return sorted(numbers.intersection(others))


def _in_chunks(keys: Iterable[PointKey]) -> Iterator[list[PointKey]]:
    remaining = iter(keys)
    while some := list(islice(remaining, _KEYS_A_QUERY)):
        yield some

"""All that a latency table knows of one environment, as values: what travels between two machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, final

from ..device import Environment
from ..keys import PartKey
from ..session import Session
from ..timer import Protocol, RoundTiming
from .entities import Density, Source, StoredCorrection


@final
@dataclass(frozen=True)
class StoredSession:
    """One stretch of measuring, as it stands in the table.

    Args:
        session_id: unique.
        protocol: settings of the visits, their version among them.
        seed: order of the visits.
        started_at, ended_at: epoch seconds of the first and the last time it was recorded.
        checks: per check, in time order, pairs of canary name and nanoseconds.
        load: one-minute load average at each check; empty where it is unknown.
        canary_ratio: 1 + the drift that the canaries tell.
        finished, forced: as in `Session`.
        accepted: whether its measurements are good, as the machine that measured decided.
        process: which process measured; empty where it is unknown.
        superseded: whether the machine is known to have changed since, so that its measurements no longer count.
    """

    session_id: str
    protocol: Mapping[str, int | float]
    seed: int
    started_at: float
    ended_at: float
    checks: Sequence[Sequence[Sequence[Any]]]
    load: Sequence[float]
    canary_ratio: float
    finished: bool
    forced: bool
    accepted: bool
    process: str = ""
    superseded: bool = False

    @property
    def counts(self) -> bool:
        """Whether the table's present state rests on it."""
        return self.accepted and not self.superseded

    def session(self) -> Session:
        """The session that was recorded."""
        settings: dict[str, Any] = {name: value for name, value in self.protocol.items() if name != "version"}
        return Session(
            session_id=self.session_id,
            seed=self.seed,
            protocol=Protocol(**settings),
            checks=tuple(tuple((name, value) for name, value in check) for check in self.checks),
            load=tuple(self.load),
            finished=self.finished,
            forced=self.forced,
            process=self.process,
        )

    def same_work(self, other: StoredSession) -> bool:
        """Whether both can be states of one session: what is fixed when it begins is equal."""
        return (self.session_id, self.protocol, self.seed, self.started_at, self.process) == (
            other.session_id,
            other.protocol,
            other.seed,
            other.started_at,
            other.process,
        )


@final
@dataclass(frozen=True)
class StoredMeasurement:
    """One visit to one part at one batch size and density."""

    key_hash: str
    batch: int
    density: Density
    session_id: str
    round: int
    timing: RoundTiming
    source: Source = "imported"

    @property
    def visit(self) -> tuple[str, int, Density, str, int]:
        """What it measured, and when; at most one measurement has it."""
        return self.key_hash, self.batch, self.density, self.session_id, self.round

    @property
    def contents(self) -> tuple[str | int, ...]:
        """What a table version is a hash of, in the order of the columns."""
        return (
            *(self.key_hash, self.batch, *self.density, self.session_id, self.round),
            *asdict(self.timing).values(),
        )


@final
@dataclass(frozen=True)
class TableContents:
    """One environment of a latency table, whole.

    Args:
        environment: where it was measured.
        version: the table version, which the measurements of accepted sessions hash to.
        sessions: by id.
        parts: by hash.
        measurements: by part, batch, density, session and round.
        corrections: those fitted on that version, in the order in which they were kept.
    """

    environment: Environment
    version: str
    sessions: tuple[StoredSession, ...]
    parts: tuple[PartKey, ...]
    measurements: tuple[StoredMeasurement, ...]
    corrections: tuple[StoredCorrection, ...] = ()

    @cached_property
    def accepted(self) -> tuple[StoredMeasurement, ...]:
        """The measurements that count."""
        sessions = {session.session_id for session in self.sessions if session.counts}
        return tuple(row for row in self.measurements if row.session_id in sessions)

    def hashed(self) -> str:
        """The version that these contents have."""
        return contents_hash(row.contents for row in self.accepted)


@final
@dataclass(frozen=True)
class Added:
    """What receiving contents changed; all zero if everything was there.

    Args:
        environment_id, version: what was received.
        sessions: new ones, and those of which a later state was received.
        parts, measurements, corrections: new ones.
        pinned: whether the version is frozen here, so that predictions can name it.
    """

    environment_id: str
    version: str
    sessions: int
    parts: int
    measurements: int
    corrections: int
    pinned: bool

    @property
    def nothing(self) -> bool:
        """Whether everything was there."""
        return not (self.sessions or self.parts or self.measurements or self.corrections)


def contents_hash(rows: Iterable[tuple[str | int, ...]]) -> str:
    """The table version of measurements, given in the order of `rows.CONTENTS`.

    How a measurement came here is no part of it: the same numbers make the same predictions.
    """
    digest = hashlib.sha256()
    for row in sorted(rows):  # sorted here, because databases differ in the order of text
        # Versions older than imports hashed this word with every row; it keeps their names.
        digest.update(json.dumps((*row, "measured")).encode() + b"\n")
    return digest.hexdigest()[:16]

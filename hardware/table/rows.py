"""The tables of measured latencies. Measurements are only ever added, never changed."""

from __future__ import annotations

from typing import Final, final

from sqlalchemy import CheckConstraint, ForeignKey, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..database import COLUMN_TYPES, CONSTRAINT_NAMES, COUNTED, JsonList, JsonMap
from ..device import Environment
from ..keys import PartKey
from ..timer import RoundTiming
from .entities import StoredCorrection, TableVersion

TIMES: Final = ("n", "min_ns", "p10_ns", "median_ns", "mean_ns", "p90_ns", "max_ns", "mad_ns")
CONTENTS: Final = (
    "key_hash",
    "batch",
    "density_num",
    "density_den",
    "session_id",
    "round",
    *TIMES,
)


class TableBase(DeclarativeBase):
    """The tables of one or more latency tables."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = COLUMN_TYPES


@final
class EnvironmentRow(TableBase):
    """Hardware and software that measurements belong to; the id is a hash of the items."""

    __tablename__ = "dynarch_environment"

    id: Mapped[str] = mapped_column(primary_key=True)
    items: Mapped[JsonList]

    def entity(self) -> Environment:
        """This row as a value."""
        return Environment(tuple((name, value) for name, value in self.items))


@final
class PartKeyRow(TableBase):
    """What a part executes, under the hash of it."""

    __tablename__ = "dynarch_part_key"

    hash: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    ops: Mapped[JsonList]
    macs: Mapped[int]
    bytes_weights: Mapped[int]
    uncounted: Mapped[JsonList]

    def entity(self) -> PartKey:
        """This row as a value."""
        return PartKey(self.hash, self.kind, tuple(self.ops), self.macs, self.bytes_weights, tuple(self.uncounted))


@final
class SessionRow(TableBase):
    """One stretch of measuring in its latest state; whether it counts decides over its measurements."""

    __tablename__ = "dynarch_session"

    id: Mapped[str] = mapped_column(primary_key=True)
    environment_id: Mapped[str] = mapped_column(ForeignKey("dynarch_environment.id"))
    protocol: Mapped[JsonMap]
    seed: Mapped[int]
    started_at: Mapped[float]
    ended_at: Mapped[float]
    checks: Mapped[JsonList]
    load: Mapped[JsonList]
    canary_ratio: Mapped[float]
    finished: Mapped[bool]
    forced: Mapped[bool]
    accepted: Mapped[bool]
    process: Mapped[str]
    superseded: Mapped[bool]


@final
class MeasurementRow(TableBase):
    """One visit to one part at one batch size and density."""

    __tablename__ = "dynarch_measurement"
    __table_args__ = (
        UniqueConstraint(
            "key_hash",
            "environment_id",
            "batch",
            "density_num",
            "density_den",
            "session_id",
            "round",
            name="uq_dynarch_measurement_visit",
        ),
        CheckConstraint("source IN ('measured', 'imported')", name="source"),
    )

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    key_hash: Mapped[str] = mapped_column(ForeignKey("dynarch_part_key.hash"))
    environment_id: Mapped[str] = mapped_column(ForeignKey("dynarch_environment.id"), index=True)
    batch: Mapped[int]
    density_num: Mapped[int]
    density_den: Mapped[int]
    session_id: Mapped[str] = mapped_column(ForeignKey("dynarch_session.id"))
    round: Mapped[int]
    n: Mapped[int]
    min_ns: Mapped[int]
    p10_ns: Mapped[int]
    median_ns: Mapped[int]
    mean_ns: Mapped[int]
    p90_ns: Mapped[int]
    max_ns: Mapped[int]
    mad_ns: Mapped[int]
    source: Mapped[str]

    @property
    def timing(self) -> RoundTiming:
        """What the visit found."""
        return RoundTiming(**{name: getattr(self, name) for name in TIMES})


@final
class VersionRow(TableBase):
    """A frozen version: the measurements up to `last_measurement` of the sessions listed."""

    __tablename__ = "dynarch_table_freeze"
    __table_args__ = (UniqueConstraint("environment_id", "version"),)

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    version: Mapped[str]
    environment_id: Mapped[str] = mapped_column(ForeignKey("dynarch_environment.id"))
    created_at: Mapped[float]
    parent: Mapped[str | None]
    last_measurement: Mapped[int]
    sessions: Mapped[JsonList]

    def entity(self) -> TableVersion:
        """This row as a value."""
        return TableVersion(self.version, self.environment_id, self.created_at, self.parent)


@final
class CorrectionRow(TableBase):
    """A correction fitted on one version; equal ones of two versions have one id, hence the wider key."""

    __tablename__ = "dynarch_correction"
    __table_args__ = (UniqueConstraint("environment_id", "version", "correction_id"),)

    id: Mapped[int] = mapped_column(COUNTED, primary_key=True)
    correction_id: Mapped[str] = mapped_column(index=True)
    environment_id: Mapped[str] = mapped_column(ForeignKey("dynarch_environment.id"))
    version: Mapped[str]
    created_at: Mapped[float]
    payload: Mapped[JsonMap]

    def entity(self) -> StoredCorrection:
        """This row as a value."""
        return StoredCorrection(self.correction_id, self.environment_id, self.version, self.created_at, self.payload)

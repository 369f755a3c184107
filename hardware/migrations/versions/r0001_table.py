"""The first tables of measured latencies: environments, parts, sessions, measurements, versions, corrections.

There is no way down: measurements are a record, and dropping their tables would lose it.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

COUNTED: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _create_environment()
    _create_part_key()
    _create_session()
    _create_measurement()
    _create_freeze()
    _create_correction()


def _json() -> sa.JSON:
    return sa.JSON(none_as_null=True)


def _of_environment(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["environment_id"], ["dynarch_environment.id"], name=f"fk_{table}_environment_id")


def _create_environment() -> None:
    op.create_table(
        "dynarch_environment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("items", _json(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_environment"),
    )


def _create_part_key() -> None:
    op.create_table(
        "dynarch_part_key",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ops", _json(), nullable=False),
        sa.Column("macs", sa.BigInteger(), nullable=False),
        sa.Column("bytes_weights", sa.BigInteger(), nullable=False),
        sa.Column("uncounted", _json(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_dynarch_part_key"),
    )


def _create_session() -> None:
    op.create_table(
        "dynarch_session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("protocol", _json(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("checks", _json(), nullable=False),
        sa.Column("load", _json(), nullable=False),
        sa.Column("canary_ratio", sa.Double(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        _of_environment("dynarch_session"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_session"),
    )


def _create_measurement() -> None:
    counted = ("n", "min_ns", "p10_ns", "median_ns", "mean_ns", "p90_ns", "max_ns", "mad_ns")
    visit = (
        "key_hash",
        "environment_id",
        "batch",
        "density_num",
        "density_den",
        "session_id",
        "round",
    )
    op.create_table(
        "dynarch_measurement",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("density_num", sa.BigInteger(), nullable=False),
        sa.Column("density_den", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counted),
        sa.Column("source", sa.Text(), nullable=False),
        sa.CheckConstraint("source IN ('measured', 'imported')", name="ck_dynarch_measurement_source"),
        _of_environment("dynarch_measurement"),
        sa.ForeignKeyConstraint(["key_hash"], ["dynarch_part_key.hash"], name="fk_dynarch_measurement_key_hash"),
        sa.ForeignKeyConstraint(["session_id"], ["dynarch_session.id"], name="fk_dynarch_measurement_session_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_measurement"),
        sa.UniqueConstraint(*visit, name="uq_dynarch_measurement_visit"),
    )
    op.create_index("ix_dynarch_measurement_environment_id", "dynarch_measurement", ["environment_id"])


def _create_freeze() -> None:
    op.create_table(
        "dynarch_table_freeze",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("parent", sa.Text()),
        sa.Column("last_measurement", sa.BigInteger(), nullable=False),
        sa.Column("sessions", _json(), nullable=False),
        _of_environment("dynarch_table_freeze"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_table_freeze"),
        sa.UniqueConstraint("environment_id", "version", name="uq_dynarch_table_freeze_environment_id_version"),
    )


def _create_correction() -> None:
    op.create_table(
        "dynarch_correction",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("correction_id", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("payload", _json(), nullable=False),
        _of_environment("dynarch_correction"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_correction"),
        sa.UniqueConstraint(
            "environment_id",
            "version",
            "correction_id",
            name="uq_dynarch_correction_environment_id_version_correction_id",
        ),
    )
    op.create_index("ix_dynarch_correction_correction_id", "dynarch_correction", ["correction_id"])

"""The first tables of the ledger: searches, evaluations, rungs, operating points, events.

There is no way down: a ledger is a record, and dropping its tables would lose it.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

COUNTED: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STATUSES: Final = "'created', 'profiling', 'running', 'scoring', 'finished', 'cancelled', 'interrupted', 'failed'"
STATES: Final = "'proposed', 'running', 'finished', 'stopped', 'failed'"


def upgrade() -> None:
    """Create the tables."""
    _create_search()
    _create_evaluation()
    _create_rung()
    _create_point()
    _create_event()


def _json() -> sa.JSON:
    return sa.JSON(none_as_null=True)


def _of_evaluation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["search_id", "number"],
        ["dynarch_evaluation.search_id", "dynarch_evaluation.number"],
        name=f"fk_{table}_search_id_number",
    )


def _create_search() -> None:
    op.create_table(
        "dynarch_search",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("spec", _json(), nullable=False),
        sa.Column("data_id", sa.Text()),
        sa.Column("table_version", sa.Text()),
        sa.Column("correction_id", sa.Text()),
        sa.Column("mlflow_run_id", sa.Text()),
        sa.Column("holder", sa.Text()),
        sa.Column("heartbeat_at", sa.Double()),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("test_opened_at", sa.Double()),
        sa.Column("hypervolume_reference", _json()),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="ck_dynarch_search_status"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_search"),
    )


def _create_evaluation() -> None:
    op.create_table(
        "dynarch_evaluation",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("search_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("architecture_id", sa.Text(), nullable=False),
        sa.Column("architecture", _json(), nullable=False),
        sa.Column("params", _json(), nullable=False),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("fidelity", sa.BigInteger(), nullable=False),
        sa.Column("evaluator", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text()),
        sa.Column("epochs_done", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double()),
        sa.Column("metrics", _json()),
        sa.Column("curve", _json()),
        sa.Column("artefacts", sa.Text()),
        sa.Column("optuna_trial", sa.BigInteger()),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text()),
        sa.Column("logged", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.CheckConstraint(f"state IN ({STATES})", name="ck_dynarch_evaluation_state"),
        sa.ForeignKeyConstraint(["search_id"], ["dynarch_search.id"], name="fk_dynarch_evaluation_search_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_evaluation"),
        sa.UniqueConstraint("search_id", "number", name="uq_dynarch_evaluation_search_id_number"),
        sa.UniqueConstraint(
            "search_id",
            "architecture_id",
            "seed",
            "fidelity",
            name="uq_dynarch_evaluation_search_id_architecture_id_seed_fidelity",
        ),
    )


def _create_rung() -> None:
    op.create_table(
        "dynarch_rung",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("search_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("points", _json(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        _of_evaluation("dynarch_rung"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_rung"),
        sa.UniqueConstraint("search_id", "number", "epoch", name="uq_dynarch_rung_search_id_number_epoch"),
    )


def _create_point() -> None:
    op.create_table(
        "dynarch_point",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("search_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("policy", _json(), nullable=False),
        sa.Column("metrics", _json(), nullable=False),
        sa.Column("front", sa.Boolean(), nullable=False),
        sa.Column("test", _json()),
        sa.Column("measured", _json()),
        _of_evaluation("dynarch_point"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_point"),
        sa.UniqueConstraint("search_id", "number", "index", name="uq_dynarch_point_search_id_number_index"),
    )


def _create_event() -> None:
    op.create_table(
        "dynarch_event",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("search_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["dynarch_search.id"], name="fk_dynarch_event_search_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dynarch_event"),
    )
    op.create_index("ix_dynarch_event_search_id", "dynarch_event", ["search_id"])

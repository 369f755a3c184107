"""Sessions tell which process measured, and whether the machine has changed since.

There is no way down: which measurements still count would be lost.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Add the columns; of sessions that are there, the process is unknown and the machine still the same."""
    op.add_column("dynarch_session", sa.Column("process", sa.Text(), nullable=False, server_default=""))
    op.add_column("dynarch_session", sa.Column("superseded", sa.Boolean(), nullable=False, server_default=sa.false()))

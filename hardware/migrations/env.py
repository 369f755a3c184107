"""Runs the migration scripts of this folder on a connection that the caller has already opened and locked.

`Database.open` is that caller. The transaction is its own, so an upgrade that fails leaves nothing behind.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
with context.begin_transaction():
    context.run_migrations()

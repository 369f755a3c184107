"""SQLite and PostgreSQL: opening, upgrading and transactions, for every part of dynarch that keeps tables."""

from __future__ import annotations

from .access import DATABASE_ERRORS, RETRY_DELAYS_SECONDS, Component, Database
from .columns import COLUMN_TYPES, CONSTRAINT_NAMES, COUNTED, JsonList, JsonMap, plain_json, plain_text

__all__ = [
    "COLUMN_TYPES",
    "CONSTRAINT_NAMES",
    "COUNTED",
    "DATABASE_ERRORS",
    "RETRY_DELAYS_SECONDS",
    "Component",
    "Database",
    "JsonList",
    "JsonMap",
    "plain_json",
    "plain_text",
]

"""SQLite and PostgreSQL: opening, upgrading and transactions, for every part of dynarch that keeps tables."""

from __future__ import annotations

from .access import DATABASE_ERRORS, RETRY_DELAYS_SECONDS, Component, Database
from .columns import COLUMN_TYPES, CONSTRAINT_NAMES, COUNTED, JsonList, JsonMap, plain_json, plain_text
from .guests import guest_options, guest_url, prepare_guest

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
    "guest_options",
    "guest_url",
    "plain_json",
    "plain_text",
    "prepare_guest",
]

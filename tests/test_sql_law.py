"""A law of the house: values reach SQL as bound parameters, so no statement is put together from text."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from dynarch.tests.house import Module
from dynarch.tests.test_layers import HOUSE

RUN = ("execute", "exec_driver_sql", "executescript", "executemany", "scalar", "scalars", "stream")
TEXT = ("text", "literal_column", "DDL", "TextClause")
# A pragma takes no parameters; these are a tuple of constants in the line above.
CONSTANT = {("hardware/database/access.py", "PRAGMA ")}


def assembled(node: ast.expr) -> bool:
    """Whether an expression puts text together."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in ast.walk(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("format", "join", "replace")
    return isinstance(node, ast.IfExp) and (assembled(node.body) or assembled(node.orelse))


def statements_are_constant(path: str, tree: ast.AST) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        first = call.args[0]
        if name in TEXT and path.startswith(("hardware/database", "hardware/table", "search/ledger")):
            if not isinstance(first, ast.Constant):
                yield f"{path}:{call.lineno}: {name}() of something else than a constant"
        elif name in RUN and assembled(first):
            opening = first.values[0] if isinstance(first, ast.JoinedStr) else None
            start = str(opening.value) if isinstance(opening, ast.Constant) else ""
            if (path, start) not in CONSTANT:
                yield f"{path}:{call.lineno}: {name}() runs text that was put together; bind the values"


@pytest.mark.parametrize("module", HOUSE.modules, ids=lambda module: module.path)
def test_a_module_binds_its_values(module: Module) -> None:
    assert list(statements_are_constant(module.path, module.tree)) == []


@pytest.mark.parametrize(
    "line",
    [
        "session.execute(f'SELECT * FROM t WHERE id = {name}')",
        "connection.execute('SELECT * FROM t WHERE id = ' + name)",
        "connection.exec_driver_sql('SELECT %s' % name)",
        "cursor.executescript('DROP TABLE {}'.format(name))",
        "cursor.execute(f'PRAGMA {name}')",
        "session.scalars(text(f'SELECT {name}'))",
        "session.execute('A' if quick else f'B {name}')",
    ],
)
def test_a_statement_that_was_put_together_is_caught(line: str) -> None:
    assert len(list(statements_are_constant("search/ledger/a.py", ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "session.execute(select(Row).where(Row.id == name))",
        "connection.execute('SELECT * FROM t WHERE id = ?', (name,))",
        "connection.exec_driver_sql('BEGIN IMMEDIATE' if write else 'BEGIN')",
        "session.execute(text('SELECT 1'))",
    ],
)
def test_a_constant_statement_is_taken(line: str) -> None:
    assert list(statements_are_constant("search/ledger/a.py", ast.parse(line))) == []

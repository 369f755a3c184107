"""The line of an exported latency table that tells of one session."""

from __future__ import annotations

import math
from typing import Any

from ...spaces.errors import SpecError
from ..table import StoredSession
from ..timer import Protocol
from .reading import Fields, is_number, is_text, is_whole, shown


def read_session(line: Fields) -> StoredSession:
    """The session, if what the line says of it fits together.

    Whether it was accepted is the word of the machine that measured; how much drift it takes may change.

    Raises:
        DataError: if it does not.
    """
    session = StoredSession(
        session_id=line.text("session_id"),
        protocol=_protocol(line),
        seed=line.whole("seed", -(2**63)),
        started_at=line.number("started_at"),
        ended_at=line.number("ended_at"),
        checks=_checks(line),
        load=[float(value) for value in line.items("load", "numbers of at least 0", _is_load)],  # type: ignore[arg-type]
        canary_ratio=line.number("canary_ratio"),
        finished=line.flag("finished"),
        forced=line.flag("forced"),
        accepted=line.flag("accepted"),
        process=_process(line),
        superseded=line.flag("superseded", absent=False),
    )
    if session.ended_at < session.started_at:
        line.refuse(f"ended_at must not lie before started_at, but is {session.ended_at}")
    drift = session.session().drift
    if not math.isclose(session.canary_ratio, 1 + drift, rel_tol=1e-9):
        line.refuse(f"canary_ratio must be what the checks tell, {1 + drift:.6g}, but is {session.canary_ratio:.6g}")
    if not session.accepted and (session.forced or not session.finished):
        line.refuse("a session that is forced or not finished must be accepted, but is not")
    return session


def _process(line: Fields) -> str:
    """Files of earlier versions do not tell it."""
    process = line.optional("process")
    if not (process is None or is_text(process)):
        line.refuse(f"field 'process' must be text, but is {shown(process)}")
    return str(process or "")


def _protocol(line: Fields) -> dict[str, int | float]:
    settings: Any = line.take("protocol")
    if not isinstance(settings, dict) or not all(map(is_number, settings.values())):
        line.refuse(f"field 'protocol' must map settings to numbers, but is {shown(settings)}")
    names = Protocol().to_dict()
    if settings.keys() != names.keys():
        line.refuse(f"field 'protocol' must have {', '.join(names)}, but differs in {_difference(settings, names)}")
    if settings["version"] != Protocol.VERSION:
        rule = f"the protocol must have version {Protocol.VERSION}, but has {shown(settings['version'])}"
        line.refuse(rule, "use the dynarch that wrote it")
    wrong = [name for name, value in names.items() if isinstance(value, int) and not is_whole(settings[name])]
    if wrong:
        line.refuse(f"field 'protocol' must have a whole number for {wrong[0]!r}, but has {shown(settings[wrong[0]])}")
    try:
        Protocol(**{name: value for name, value in settings.items() if name != "version"})
    except SpecError as error:
        line.refuse(str(error))
    return dict(settings)


def _difference(settings: dict[str, object], names: dict[str, int | float]) -> str:
    return ", ".join(sorted(shown(name) for name in settings.keys() ^ names.keys()))


def _checks(line: Fields) -> list[Any]:
    checks: list[Any] = line.items("checks", "checks, each a list of canary and nanoseconds", _is_check)
    if len({tuple(name for name, _ in check) for check in checks}) > 1:
        line.refuse("all checks must have the same canaries in the same order, but do not")
    return checks


def _is_check(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_canary, value))


def _is_canary(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and is_whole(value[1], 1)


def _is_load(value: object) -> bool:
    return is_number(value) and value >= 0  # type: ignore[operator]  # just checked

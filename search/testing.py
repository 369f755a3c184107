"""A transport without Ray, for the tests of plug-ins: one worker, in this process, one candidate after the other.

It asks the same four questions of the engine that Ray Tune asks, and its messages cross the same border as
plain JSON. A `hook` is called at every moment at which a driver could die; `kill_at` makes it die there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from .candidate import LAST, Candidate, Message
from .engine import Engine
from .worker import Assignment, Worker

When = Literal["proposed", "sent", "judged", "taken"]


@final
@dataclass(frozen=True)
class Moment:
    """A place between two steps of a search.

    Args:
        when: `proposed` (recorded, no worker has it), `sent` (a worker said something that the engine has not
            heard), `judged` (a verdict stands, the candidate has not ended), `taken` (the engine has taken it in).
        number: the candidate.
        message: the worker's latest word; None before its first.
    """

    when: When
    number: int
    message: Message | None = None


Hook = Callable[[Moment], None]


@final
class Killed(BaseException):
    """The driver dies here; no failure of a candidate, hence no `Exception`."""


def kill_at(index: int) -> Hook:
    """A hook that dies at the moment of that number, counted from 0."""
    left = index

    def hook(moment: Moment) -> None:
        nonlocal left
        if left == 0:
            raise Killed(f"at {moment}")
        left -= 1

    return hook


def run_inline(engine: Engine, assignment: Assignment, *, hook: Hook = lambda moment: None) -> None:
    """Drive the engine to its end, as `tune.run` does.

    Args:
        engine: what to try and what to make of it.
        assignment: what the worker must know.
        hook: called at every moment.
    """
    worker = Worker(assignment)
    while not engine.exhausted:
        candidate = engine.propose()
        if candidate is None:
            return
        hook(Moment("proposed", candidate.number))
        worker.assign(candidate.number, candidate.architecture, candidate.folder)
        _evaluate(engine, worker, candidate, hook)


def _evaluate(engine: Engine, worker: Worker, candidate: Candidate, hook: Hook) -> None:
    """Step until the candidate ends, or the engine wants everything to."""
    while True:
        message = _sent(worker.step())
        hook(Moment("sent", candidate.number, message))
        goes_on = message.state not in LAST and engine.report(message)
        hook(Moment("judged", candidate.number, message))
        if not goes_on or engine.stopped:
            engine.finish(message)
            hook(Moment("taken", candidate.number, message))
            return


def _sent(message: Message) -> Message:
    """What arrives of a message: plain JSON without NaN."""
    return Message.from_mapping(json.loads(json.dumps(message.to_mapping(), allow_nan=False)))

"""The process that measures one session and ends: what it is told, what it tells, and when it must die.

It is started by `fresh_process`, reads one line of JSON that says what to measure, builds the space's parts
from its spec, and sends lines of JSON: rows, which it waits to be told are kept, progress, and the end. Its
parent holds the other end of the line: when that closes, it dies.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any, Final, final

import torch

from ..spaces.backbone import Signature
from ..spaces.errors import DynarchError, SpecError
from ..spaces.space import Space
from .device import AbstractDevice
from .devices import device_from_dict
from .inventory import parts_at
from .measurables import measurable
from .profile import Due, Entry, Row
from .session import Session
from .stretch import InThisProcess
from .timer import Protocol

PROGRESS_SECONDS: Final = 0.1  # between two lines that only tell how far it is


def main() -> None:
    """Measure what the first line of the standard input says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both: the parent decides what it means
    line = _Line(sys.stdin, _private_output())
    try:
        session = _measured(json.loads(line.heard()), line)
    except Exception as error:  # the parent raises it
        line.say({"error": str(error), "kind": type(error).__name__ if isinstance(error, DynarchError) else ""})
        raise SystemExit(1) from None
    line.say({"end": session_to_mapping(session)})


def _private_output() -> IO[str]:
    """The line to the parent; whatever else writes to the standard output is sent to that for errors."""
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(kept, "w", encoding="utf-8")


def _measured(order: Mapping[str, Any], line: _Line) -> Session:
    for name, value in order["flags"].items():
        FLAGS[name][1](value)
    device = device_from_dict(order["device"])
    check_environment(device, order["environment"])
    space, signature = Space.from_mapping(order["space"]), Signature.from_mapping(order["signature"])
    places = {name: (number, index) for name, (number, index) in order["places"].items()}
    parts = [measurable(key, part, device) for key, part in parts_at(space, signature, places).values()]
    due: dict[Entry, Due] = {(key, batch): Due(*numbers) for key, batch, *numbers in order["due"]}

    def keep(session: Session, rows: Sequence[Row]) -> None:
        line.say({"session": session_to_mapping(session), "rows": [row_to_list(row) for row in rows]})
        line.heard()  # so that the parent never writes to its disk while something is timed

    measure = InThisProcess(parts, device)
    protocol = Protocol(**order["protocol"])
    return measure(due, seed=order["seed"], protocol=protocol, keep=keep, on_visits=line.progress)


def check_environment(device: AbstractDevice, expected: Mapping[str, Any]) -> None:
    """Refuse to measure in another environment than the parent wants entries for.

    Raises:
        SpecError: names the first item that differs.
    """
    found = device.environment().to_dict()
    wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if wrong:
        name = wrong[0]
        raise SpecError(
            "device",
            f"{name} must be {expected.get(name)!r} in every process, but is {found.get(name)!r} in a new one;"
            " set it in the environment of the process instead of in its code",
        )


@final
class _Line:
    """The line to the parent. A thread listens, so that the parent's death ends this process at once."""

    def __init__(self, source: IO[str], target: IO[str]) -> None:
        self._target = target
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._told_at = 0.0
        threading.Thread(target=self._listen, args=(source,), daemon=True).start()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one line."""
        try:
            self._target.write(json.dumps(message) + "\n")
            self._target.flush()
        except OSError:
            os._exit(1)  # nobody is there

    def heard(self) -> str:
        """The next line from the parent."""
        return self._heard.get()

    def progress(self, visits: int) -> None:
        """Tell how many visits have been made, now and then."""
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self.say({"visits": visits})

    def _listen(self, source: IO[str]) -> None:
        for text in source:
            self._heard.put(text)
        os._exit(1)  # in the middle of whatever goes on: nobody would keep what it finds


def session_to_mapping(session: Session) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(session)


def row_to_list(row: Row) -> list[Any]:
    """Plain JSON values: part, batch, round and the numbers of the visit."""
    return [row.key.hash, row.batch, row.round, list(asdict(row.timing).values())]


def _tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed


def _benchmark(used: bool) -> None:
    torch.backends.cudnn.benchmark = used


# Settings of torch that a user's code may have changed, and that a new process must share: how to read, how to set.
FLAGS: Final[Mapping[str, tuple[Callable[[], Any], Callable[[Any], None]]]] = {
    "matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cudnn_benchmark": (lambda: torch.backends.cudnn.benchmark, _benchmark),
    "cudnn_tf32": (lambda: torch.backends.cudnn.allow_tf32, _tf32),
}

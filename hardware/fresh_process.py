"""Measuring in a process of its own, which is started for one session and ends with it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Final, NoReturn, final

from ..spaces.backbone import Signature
from ..spaces.errors import DeviceUnavailableError, SpecError
from ..spaces.space import Space
from .device import AbstractDevice
from .devices import to_dict
from .inventory import Place
from .keys import PartKey
from .profile import Due, Entry, Keep, Row
from .profile_child import FLAGS
from .session import Session
from .timer import Protocol, RoundTiming

TICK_SECONDS: Final = 0.25  # between two looks whether anybody wants an end, while the process is silent
# Only what measuring needs is imported there: the package without what its own first file brings along.
_START: Final = """
import importlib, sys, types
name, folder, module = sys.argv[1:]
package = sys.modules[name] = types.ModuleType(name)
package.__path__ = [folder]
importlib.import_module(name + module).main()
"""


@final
@dataclass(frozen=True)
class FreshProcess:
    """Measures in a new process, which builds the parts from the space's spec.

    Args:
        space: what the parts are of.
        signature: inputs and classes.
        parts: hash -> key, of all parts that may be due.
        places: hash -> where in the space that part is.
        device: where.

    Raises:
        SpecError: when called, if the process finds another environment or other parts.
        DeviceUnavailableError: when called, if the process dies.
    """

    space: Space
    signature: Signature
    parts: Mapping[str, PartKey]
    places: Mapping[str, Place]
    device: AbstractDevice

    def __call__(
        self, due: Mapping[Entry, Due], *, seed: int, protocol: Protocol, keep: Keep, on_visits: Callable[[int], None]
    ) -> Session:
        """Visit every entry as often as it is due now."""
        done = 0
        with _started(self.device) as child:
            child.say(self._order(due, seed, protocol))
            for message in child.messages():
                if "rows" in message:
                    keep(_session(message["session"]), [self._row(values) for values in message["rows"]])
                    child.say({})
                elif "end" in message:
                    on_visits(sum(each.now for each in due.values()))
                    return _session(message["end"])
                elif "error" in message:
                    child.fail(message)
                done = int(message.get("visits", done))
                on_visits(done)  # also while nothing is heard, as this is where an end can be asked for
            return child.fail({})

    def _order(self, due: Mapping[Entry, Due], seed: int, protocol: Protocol) -> dict[str, Any]:
        return {
            "space": self.space.to_mapping(),
            "signature": self.signature.to_mapping(),
            "places": {name: self.places[name] for name, _ in due},
            "device": to_dict(self.device),
            "environment": self.device.environment().to_dict(),
            "flags": {name: read() for name, (read, _) in FLAGS.items()},
            "due": [[*entry, each.first, each.now, each.in_all] for entry, each in due.items()],
            "seed": seed,
            "protocol": asdict(protocol),
        }

    def _row(self, values: Sequence[Any]) -> Row:
        key, batch, number, timing = values
        return Row(self.parts[key], batch, number, RoundTiming(*timing))


def _session(mapping: Mapping[str, Any]) -> Session:
    values = {each.name: mapping[each.name] for each in fields(Session)}
    checks = tuple(tuple((name, value) for name, value in check) for check in values["checks"])
    plain = {"protocol": Protocol(**values["protocol"]), "checks": checks, "load": tuple(values["load"])}
    return Session(**{**values, **plain})


@final
class _Child:
    """The process, and the line to it."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes], device: AbstractDevice) -> None:
        self._process = process
        self._errors = errors
        self._device = device
        self._heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send one line; to one that is dead, nothing."""
        assert self._process.stdin is not None
        with suppress(OSError):  # that it is dead is heard next
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says until it says no more; an empty message now and then while it is silent."""
        while True:
            try:
                text = self._heard.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield {}
                continue
            if text is None:
                return
            yield json.loads(text)

    def fail(self, message: Mapping[str, Any]) -> NoReturn:
        """Raise what the process says is wrong, or that it died."""
        said = str(message.get("error", ""))
        kind = message.get("kind")
        if kind == "SpecError":
            raise SpecError("", said)
        if kind == "DeviceUnavailableError":
            raise DeviceUnavailableError(said)
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        raise DeviceUnavailableError(
            f"the process that measures on {self._device.name} must come to its end, but it ended with code {code}"
            f" ({said or last or 'it said nothing'}); what it measured is kept: profile again to go on"
        )

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self._heard.put(text)
        self._heard.put(None)

    def stop(self) -> None:
        """Leave nothing behind, however far it is."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):  # what was not sent need not be
                stream.close()


@contextmanager
def _started(device: AbstractDevice) -> Iterator[_Child]:
    package, _, _ = __name__.partition(".")
    arguments = [package, str(Path(__file__).resolve().parents[1]), ".hardware.profile_child"]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise DeviceUnavailableError(
                f"measuring on {device.name} needs a process of its own, but none could be started"
                f" ({error.strerror}); free memory or raise the limit of processes"
            ) from None
        child = _Child(process, errors, device)
        try:
            yield child
        finally:
            child.stop()

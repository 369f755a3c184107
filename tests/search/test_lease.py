"""One driver a search: who is dead is known for certain, and who was only held up writes nothing more."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynarch.search.lease import LEASE_SECONDS, Lease, release_if_dead
from dynarch.search.ledger import Ledger
from dynarch.spaces.errors import SearchBusyError
from dynarch.tests.search.ledger_writers import finish, propose

LINUX = Path("/proc/self/stat").exists()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        opened.create_search("s", name="digits", spec={}, seed=7, created_at=1.0)
        yield opened


def lease(ledger: Ledger, now: float) -> Lease:
    return Lease(ledger, "s", on_stop=lambda reason: None, clock=lambda: now, beat_seconds=1000.0)


def held_by(ledger: Ledger, process: int, began: str) -> None:
    holder = f"{socket.gethostname()}:{process}:{began}-abcd"
    ledger.acquire("s", holder, now=0.0, ttl_seconds=0.0)


# -- who is dead ----------------------------------------------------------------------------------------------


def test_a_living_process_of_this_machine_holds_its_search(ledger: Ledger) -> None:
    with lease(ledger, 0.0) as held:
        assert ledger.search("s").holder == held.holder
        assert not release_if_dead(ledger, "s")
    assert release_if_dead(ledger, "s")


@pytest.mark.skipif(not LINUX, reason="when a process began is known from /proc")
def test_another_process_of_the_same_number_holds_nothing(ledger: Ledger) -> None:
    held_by(ledger, os.getpid(), "1")  # at the first tick of the machine there was no Python yet
    assert release_if_dead(ledger, "s")


@pytest.mark.skipif(not LINUX, reason="what a process is doing is known from /proc")
def test_a_zombie_is_dead(ledger: Ledger) -> None:
    """As a driver that was killed in a container, whose first process does not ask for it."""
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as zombie:
        assert zombie.stdout is not None
        zombie.stdout.read()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still to be waited for
        held_by(ledger, zombie.pid, "?")
        assert release_if_dead(ledger, "s")


@pytest.mark.parametrize("holder", ["elsewhere:1:5-ab", "first", f"{socket.gethostname()}:x:5-ab"])
def test_of_other_holders_nothing_is_known(ledger: Ledger, holder: str) -> None:
    ledger.acquire("s", holder, now=0.0, ttl_seconds=0.0)
    assert not release_if_dead(ledger, "s")


# -- who was held up ------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Ledger], object]] = {
    "propose": lambda ledger: propose(ledger, 1),
    "start": lambda ledger: ledger.start("s", 0),
    "rung": lambda ledger: ledger.record_rung("s", 0, 1, points=[], kept=True),
    "finish": lambda ledger: finish(ledger, 0),
    "status": lambda ledger: ledger.set_status("s", "finished"),
    "front": lambda ledger: ledger.mark_front("s", []),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_driver_that_was_held_up_and_replaced_writes_nothing_more(
    ledger: Ledger, tmp_path: Path, write: Callable[[Ledger], object]
) -> None:
    """As after the sleep of a laptop: the other one has taken over, and the first has not noticed yet."""
    with lease(ledger, 0.0) as first:
        propose(ledger, 0)
        with Ledger.open(tmp_path / "ledger.db") as other, lease(other, LEASE_SECONDS) as second:
            before = (ledger.search("s"), ledger.evaluations("s"), ledger.rungs("s"))
            with pytest.raises(SearchBusyError, match=f"{first.holder!r} has lost search 's'") as refused:
                write(ledger)
            assert refused.value.holder == second.holder
            assert (ledger.search("s"), ledger.evaluations("s"), ledger.rungs("s")) == before
            write(other)


def test_whoever_drives_nothing_may_write(ledger: Ledger, tmp_path: Path) -> None:
    """As `dynarch cancel` does from another process."""
    with lease(ledger, 0.0), Ledger.open(tmp_path / "ledger.db") as other:
        other.request_cancel("s")
    assert ledger.search("s").cancel_requested
    ledger.withdraw_cancel("s")  # and the lease is over

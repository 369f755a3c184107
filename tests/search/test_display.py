"""What a watcher of a search sees: a bar on a terminal, a few lines in a log file."""

from __future__ import annotations

import io
import re
from threading import Thread

import pytest
from rich.console import Console

from dynarch.search.display import Display, detail
from dynarch.search.events import Event

SHOW_CURSOR = "\x1b[?25h"


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def written(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_the_detail_counts_what_ended_each_way() -> None:
    # of five that ended, one was stopped and two failed: two are left that finished
    event = Event("searching", done=5, total=10, stopped=1, failed=2, hypervolume=0.12345)
    assert detail(event) == "2 done, 1 stopped, 2 failed, hv 0.123"
    assert detail(Event("measuring", done=5, total=10)) == ""


def test_a_log_file_gets_a_line_a_tenth() -> None:
    shown = console(terminal=False)
    with Display(shown) as display:
        for done in range(1, 41):
            display.note("measuring on cpu", done, 40)
    # the first visit, then one line at 10 %, 20 %, ... of 40
    assert written(shown).splitlines() == [f"measuring on cpu {done}/40" for done in (1, *range(4, 41, 4))]


def test_a_log_file_gets_every_candidate() -> None:
    shown = console(terminal=False)
    with Display(shown) as display:
        for done in range(1, 4):
            display.show(Event("searching", done, 100, hypervolume=done / 10))
    assert written(shown).splitlines() == [
        f"searching {done}/100 {done} done, 0 stopped, 0 failed, hv 0.{done}00" for done in (1, 2, 3)
    ]


def test_a_phase_of_unknown_length_is_named_once() -> None:
    shown = console(terminal=False)
    with Display(shown) as display:
        for done in range(50):
            display.note("listing parts", done, 0)
        display.note("measuring", 1, 2)
        display.note("listing parts", 1, 0)
    assert written(shown).splitlines() == ["listing parts", "measuring 1/2", "listing parts"]


def test_long_lines_of_a_log_file_are_not_broken() -> None:
    shown = console(terminal=False)
    with Display(shown) as display:
        display.note("x" * 300, 1, 1)
    assert written(shown) == "x" * 300 + " 1/1\n"


def test_a_terminal_gets_a_bar_a_phase_and_its_cursor_back() -> None:
    shown = console(terminal=True)
    with Display(shown) as display:
        display.note("listing parts", 3, 0)
        display.note("measuring on cpu", 7, 10)
        display.show(Event("searching", 3, 5, stopped=1, failed=1, hypervolume=0.25))
    last = written(shown)
    # a phase that another one follows is over, however much of it was due
    for phase, amount in (("listing parts", "3/3"), ("measuring on cpu", "7/7"), ("searching", "3/5")):
        assert phase in last
        assert amount in last
    assert "1 done, 1 stopped, 1 failed, hv 0.250" in last
    assert last.rstrip().endswith(SHOW_CURSOR)


def test_an_error_gives_the_cursor_back_too() -> None:
    shown = console(terminal=True)
    display = Display(shown)
    with pytest.raises(KeyboardInterrupt), display:
        raise KeyboardInterrupt
    assert written(shown).rstrip().endswith(SHOW_CURSOR)


def test_any_thread_may_report() -> None:
    shown = console(terminal=True)
    with Display(shown) as display:

        def report() -> None:
            for done in range(50):
                display.note("timing", done, 50)

        threads = [Thread(target=report) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        display.note("timing", 50, 50)
    assert "50/50" in written(shown)


def test_eighty_columns_hold_a_search_of_a_thousand_on_one_line() -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Display(shown) as display:
        display.show(Event("searching", 1000, 1000, stopped=90, failed=10, hypervolume=0.8125))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(shown))
    lines = [line.strip() for line in plain.replace("\r", "\n").splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("searching 1000/1000 900 done, 90 stopped, 10 failed, hv 0.812")


def test_a_long_phase_is_told_whole_above_the_bar() -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=80)
    reason = "waiting, as a store failed: the database cannot be reached"
    with Display(shown) as display:
        display.note(reason, 0, 0)
    assert reason in written(shown)

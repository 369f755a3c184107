"""What the rows say: means and spreads over seeds, the targets, and every miss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Final

from rich.table import Table

from dynarch.benchmarks.mechanisms.training import WITHIN

Row = Mapping[str, Any]
KEPT, FAST_FAMILIES = 0.9, 8
BATCHES: Final = ("batch 1", "batch 32")
HEADS: Final = ("family", "on", "static %", "accuracy %", "work saved %", "learned - random", *BATCHES)


def by_family(rows: Sequence[Row], phase: str) -> dict[str, list[Row]]:
    """Rows of a phase by family, in the order of the file."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["phase"] == phase and row["family"] != "static":
            found.setdefault(row["family"], []).append(row)
    return found


def spread(values: Sequence[float], *, scale: float = 1, digits: int = 1) -> str:
    """Mean and sample deviation, such as `87.1 ± 0.4`."""
    if not values:
        return "-"
    text = f"{scale * mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {scale * stdev(values):.{digits}f}"


def verdict_table(rows: Sequence[Row]) -> Table:
    """One line a family: mean and deviation over seeds."""
    table = Table(title="Families: mean ± deviation over seeds; speed: times as fast as static, measured / promised")
    for head in HEADS:
        table.add_column(head)
    timings = by_family(rows, "time")
    for family, trained in by_family(rows, "train").items():
        timed = timings.get(family, [])
        table.add_row(family, f"{trained[0]['source']}\n{trained[0]['summary']}", *_scores(trained), *_speeds(timed))
    return table


def _scores(trained: Sequence[Row]) -> Iterator[str]:
    yield spread([row["static"]["accuracy"] for row in trained], scale=100)
    yield spread([row["accuracy"] for row in trained], scale=100)
    yield spread([row["saved"] for row in trained], scale=100)
    gains = [row["gain"] for row in trained if row["gain"] is not None]
    means = [row["mean_gain"] for row in trained if row["mean_gain"] is not None]
    yield f"{spread(gains, scale=100)}\nall points {spread(means, scale=100)}" if means else "decides nothing"


def _speeds(timed: Sequence[Row]) -> Iterator[str]:
    for name in BATCHES:
        if not timed:
            yield "-"
            continue
        ratios = (spread([row[name][which] for row in timed], digits=2) for which in ("measured", "promised"))
        yield f"{' / '.join(ratios)}\n= {spread([row[name]['kept'] for row in timed], digits=2)}"


def beats(gains: Sequence[float]) -> tuple[bool, str]:
    """Whether decisions beat random ones on average over seeds, and how sure that is.

    Sure is a mean of two standard errors above zero.
    """
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    sure = "" if mean(gains) >= 2 * error else ", within the noise of the seeds"
    return mean(gains) > 0, f"{100 * mean(gains):+.2f} points{sure}"


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Each target, met or missed, family by family."""
    for family, trained in by_family(rows, "train").items():
        gains = [row["mean_gain"] for row in trained if row["mean_gain"] is not None]
        if gains:
            met, said = beats(gains)
            yield f"{_word(met)}: {family}: learned against random decisions at equal rates {said}"
    timings = by_family(rows, "time")
    for family, timed in timings.items():
        for name in BATCHES:
            kept = mean(row[name]["kept"] for row in timed)
            yield f"{_word(kept >= KEPT)}: {family}: measured / promised {kept:.2f} at {name}, at least {KEPT}"
    fast = [family for family, timed in timings.items() if really_faster(timed)]
    if timings:
        count = f"{len(fast)} of {len(timings)} families timed ({', '.join(fast) or 'none'})"
        yield f"{_word(len(fast) >= FAST_FAMILIES)}: faster than static at batch 1 within a point: {count}, at least 8"


def really_faster(timed: Sequence[Row]) -> bool:
    """On average over seeds more than once as fast at batch 1, at most a point of accuracy lost."""
    lost = mean(float(row["static_accuracy"]) - float(row["accuracy"]) for row in timed)
    return lost <= WITHIN and mean(float(row["batch 1"]["measured"]) for row in timed) > 1


def _word(met: bool) -> str:
    return "met" if met else "MISSED"

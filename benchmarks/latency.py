"""Do predicted latencies agree with the stopwatch, on networks that nothing was fitted on?

    python benchmarks/latency.py [--quick] [--raw FOLDER] [--most N] [--json FILE]

Networks are drawn from a space of residual and inverted residual networks with early exits. Their parts, their
single operations, whole networks along fixed paths and dynamic ones on inputs that leave at different exits are timed
in interleaved, shuffled rounds in several processes, which fall to two halves in the order A B B A A B: tables,
corrections and lines see the first half of the calibration networks, and are tested on the second half of the
test networks. Measuring the test networks again, first half against second, is the noise floor; each statistic stands
with its 95 % bootstrap interval over networks, and divided by that of the floor ("x 1.0" is as good as a second
measurement of the same network).

Baselines: the parts without a correction, the single operations without a correction, a line on the numbers of
operations of each kind, and one on FLOPs. They are fitted on the same paths of the same networks.

The unseen family: everything is fitted on residual networks alone and tested on inverted residual ones; their parts
are measured, or hidden, and then told by the ladder or refused. Numbers depend on machine and neighbours: the caption
says what the canaries saw.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

import dynarch as da
from dynarch.benchmarks.heldout.rounds import Settings, halves, measure, prepare
from dynarch.benchmarks.heldout.sections import Evidence, Section, sections
from dynarch.hardware.validation import Score

QUICK = {"calibration": 8, "test": 12, "dynamic": 4, "large": 1, "traced": 130, "calls": 24, "rounds": 2}
HEADS = {"mape": "MAPE %", "within_5": "within 5 %", "within_10": "within 10 %", "bias": "bias %", "kendall": "tau"}
# What is aimed at: section, statistic, at least or at most, and the value.
TARGETS = (
    ("in_space", "mape", "at most", 0.05),
    ("unseen_family", "within_10", "at least", 0.89),
    ("batches", "mape", "at most", 0.10),
    ("parts", "mape", "at most", 0.10),
    ("dynamic_1_mean", "mape", "at most", 0.05),
    ("dynamic_1_p95", "mape", "at most", 0.10),
    ("dynamic_32_mean", "mape", "at most", 0.05),
    ("dynamic_32_p95", "mape", "at most", 0.10),
)
COVERED = (0.85, 0.95)


def section_table(section: Section) -> Table:
    """One line a predictor."""
    table = Table(title=section.title, title_justify="left")
    for head in ("", *HEADS.values()):
        table.add_column(head, justify="left" if not head else "right")
    for name, row in section.rows.items():
        table.add_row(name, *(cell(row[statistic], statistic) for statistic in HEADS))
    table.caption = "; ".join(said(section)) or None
    return table


def said(section: Section) -> Iterator[str]:
    """What stands below a table."""
    count, total = section.answered
    yield f"{count} of {total} answered" if count < total else f"{total} tested"
    if section.coverage is not None:
        share, low, high = section.coverage
        yield f"90 % intervals hold {share:.0%} [{low:.0%}, {high:.0%}]"
    yield from section.notes


def cell(score: Score, statistic: str) -> str:
    """A value with its interval, and how it stands to the noise floor."""
    scale = 1 if statistic == "kendall" else 100
    digits = 2 if statistic == "kendall" else 1
    numbers = [f"{scale * value:.{digits}f}" for value in (score.value, score.low, score.high)]
    ratio = "" if statistic == "bias" or math.isnan(score.over_floor) else f"\nx {score.over_floor:.2f}"
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]{ratio}"


def verdicts(found: Mapping[str, Section]) -> Iterator[str]:
    """Each aim beside what was reached; busy machines are held to the noise floor."""
    for name, statistic, word, aim in TARGETS:
        section = found.get(name)
        if section is None or not section.rows:
            continue
        score = next(iter(section.rows.values()))[statistic]
        met = score.value <= aim if word == "at most" else score.value >= aim
        floor = f"; {score.over_floor:.2f} of the noise floor" if statistic == "mape" else ""
        yield f"{'met' if met else 'MISSED'}: {section.title}: {statistic} {score.value:.1%}, {word} {aim:.0%}{floor}"
    for section in found.values():
        if section.coverage is not None:
            met = COVERED[0] <= section.coverage[0] <= COVERED[1]
            yield f"{'met' if met else 'MISSED'}: {section.title}: coverage {section.coverage[0]:.0%}, 85 to 95 %"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `--quick` changes the defaults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few networks, in under three minutes")
    parser.add_argument("--calibration", type=int, default=24, help="networks to fit on")
    parser.add_argument("--test", type=int, default=60, help="networks to test on")
    parser.add_argument("--dynamic", type=int, default=16, help="networks with inputs that leave early, batch 1")
    parser.add_argument("--large", type=int, default=6, help="of these, at batch 32 too")
    parser.add_argument("--traced", type=int, default=200, help="inputs of each at batch 1")
    parser.add_argument("--calls", type=int, default=130, help="batches of each at batch 32")
    parser.add_argument("--rounds", type=int, default=4, help="of each process; even")
    parser.add_argument("--processes", type=int, default=2, help="one after the other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steady", action=argparse.BooleanOptionalAction, default=True, help="wait while a sentinel is slow"
    )
    parser.add_argument("--raw", type=Path, default=Path("dynarch-results/latency"), help="folder of raw rounds")
    parser.add_argument("--most", type=int, help="processes to run now; the next call goes on where this one ended")
    parser.add_argument("--json", type=Path, default=Path("dynarch-results/latency.json"), help="file to write")
    quick, _ = parser.parse_known_args(arguments)
    if quick.quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    if options.rounds < 2 or options.rounds % 2:
        parser.error("--rounds must be an even number, as every second one belongs to the other half")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """What is measured."""
    names = ("calibration", "test", "dynamic", "large", "traced", "calls", "rounds", "processes", "seed", "steady")
    return Settings(**{name: getattr(options, name) for name in names})


def main() -> int:
    """Measure, compare, print, write."""
    options, console = parse(), Console(width=None if sys.stdout.isatty() else 130)
    settings, started = settings_of(options), time.perf_counter()
    rounds = measure(settings, options.raw, most=options.most)
    if rounds is None:
        console.print("processes are still missing; call again", highlight=False)
        return 0
    study = prepare(settings)
    seen, truth, machine = halves(study, rounds)
    found = sections(Evidence(study, seen, truth, options.seed))
    for section in found.values():
        console.print(section_table(section))
    for text in verdicts(found):
        console.print(text, highlight=False)
    drift = f"canaries: median {machine['canary_median']:.2f} and at worst {machine['canary_worst']:.2f} of the best"
    kept = f"{machine['rounds_kept']:.0f} of {options.rounds * options.processes} rounds kept"
    console.print(f"{drift}; {kept}; {time.perf_counter() - started:.0f} s", highlight=False)
    content = {
        "settings": asdict(settings),
        "machine": da.Cpu().environment().to_dict(),
        "canaries": machine,
        "seconds": time.perf_counter() - started,
        "sections": {name: section.to_mapping() for name, section in found.items()},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(content, indent=1))
    console.print(f"wrote {options.json}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

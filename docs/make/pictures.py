"""Pictures of docs/concepts.md: `python docs/make/pictures.py [FOLDER]` draws them. Sketches, no measurements."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

INK, FAINT, ACCENT, WARM, GOLD = "#1f2933", "#b4bcc6", "#0b6e99", "#c8553d", "#d99a2b"
PALE = "#dbeaf1"


def canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, without frames."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
    for each in axes:
        each.set_axis_off()
        each.set_aspect("equal")
    return figure, axes


def box(
    axes: Axes, x: float, y: float, text: str, *, width: float = 1.5, on: bool = True, colour: str = ACCENT
) -> None:
    """A part of a network; one that does not run is pale."""
    style = "round,pad=0.02,rounding_size=0.12"
    face, edge = (colour, colour) if on else ("white", FAINT)
    patch = FancyBboxPatch((x, y - 0.4), width, 0.8, boxstyle=style, fc=face, ec=edge, ls="-" if on else "--")
    axes.add_patch(patch)
    axes.text(x + width / 2, y, text, ha="center", va="center", color="white" if on else "#7b8794", size=10)


def diamond(axes: Axes, x: float, y: float, text: str, colour: str = GOLD) -> None:
    """A decision."""
    axes.add_patch(Polygon([(x - 0.55, y), (x, y + 0.5), (x + 0.55, y), (x, y - 0.5)], fc=colour, ec=colour))
    axes.text(x, y, text, ha="center", va="center", color="white", size=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, on: bool = True) -> None:
    """Where features go."""
    style = {"arrowstyle": "->", "color": INK if on else FAINT, "lw": 1.4 if on else 1.0, "ls": "-" if on else "--"}
    axes.annotate("", end, start, arrowprops=style)


def note(
    axes: Axes, x: float, y: float, text: str, *, colour: str = INK, size: float = 9.5, ha: str = "center"
) -> None:
    """Words beside."""
    axes.text(x, y, text, ha=ha, va="center", color=colour, size=size)


def bounds(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """What is shown."""
    axes.set_xlim(*x)
    axes.set_ylim(*y)


def exits() -> Figure:
    """An easy and a hard input in a network with two exits."""
    figure, rows = canvas(9.5, 3.6)
    axes = rows[0]
    for y, name, leaves in ((3.4, "an easy input", 0), (0.6, "a hard input", 2)):
        note(axes, -1.1, y, name, ha="center")
        arrow(axes, (-0.25, y), (0.25, y))
        for stage in range(3):
            x, on = 0.3 + 3.4 * stage, stage <= leaves
            box(axes, x, y, f"stage {stage + 1}", on=on)
            if stage == 2:
                continue
            arrow(axes, (x + 1.55, y), (x + 1.95, y), on=on)
            diamond(axes, x + 2.5, y, "sure?", GOLD if on else FAINT)
            arrow(axes, (x + 3.05, y), (x + 3.4, y), on=stage < leaves)
            gone = on and stage == leaves
            arrow(axes, (x + 2.5, y - 0.5), (x + 2.5, y - 1.1), on=gone)
            note(axes, x + 2.5, y - 1.3, "answer" if gone else f"exit {stage}", colour=INK if gone else "#7b8794")
        x = 0.3 + 3.4 * 2
        arrow(axes, (x + 1.55, y), (x + 2.1, y), on=leaves == 2)
        note(axes, x + 2.65, y, "answer" if leaves == 2 else "final head", colour=INK if leaves == 2 else "#7b8794")
    bounds(axes, (-2.2, 10.2), (-1.1, 4.1))
    return figure


def gates() -> Figure:
    """One block, three things that a gate may pick."""
    figure, panels = canvas(9.5, 2.6, 3)
    told = (
        ("skip a layer", (("block", False), ("nothing", True))),
        ("fewer channels", (("all channels", False), ("half of them", True))),
        ("one of several ways", (("expert 1", True), ("expert 2", False))),
    )
    for axes, (title, ways) in zip(panels, told, strict=True):
        note(axes, 2.6, 2.55, title, size=11)
        diamond(axes, 0.8, 1, "gate")
        for (text, on), y in zip(ways, (1.7, 0.3), strict=True):
            arrow(axes, (1.2, 1 + 0.25 * np.sign(y - 1)), (1.95, y), on=on)
            box(axes, 2.0, y, text, width=2.0, on=on)
            arrow(axes, (4.05, y), (4.75, 1 + 0.15 * np.sign(y - 1)), on=on)
        arrow(axes, (-0.3, 1), (0.25, 1))
        arrow(axes, (4.75, 1), (5.35, 1))
        bounds(axes, (-0.4, 5.5), (-0.4, 2.9))
    return figure


def modes() -> Figure:
    """What runs of four inputs and three segments in simulated and in routed mode."""
    figure, panels = canvas(9.5, 3.2, 2)
    leaves = (0, 2, 1, 0)
    for axes, title, routed in zip(
        panels, ("simulated: for training", "routed: what is timed"), (False, True), strict=True
    ):
        note(axes, 2.6, 4.75, title, size=11)
        for row, last in enumerate(leaves):
            y = 3.6 - row
            note(axes, -0.15, y, f"input {row + 1}", ha="right", size=9)
            for segment in range(3):
                needed = segment <= last
                if routed:
                    box(axes, 0.1 + 1.75 * segment, y, "runs" if needed else "", on=needed)
                else:
                    box(
                        axes,
                        0.1 + 1.75 * segment,
                        y,
                        "runs" if needed else "wasted",
                        on=True,
                        colour=ACCENT if needed else FAINT,
                    )
        for segment in range(3):
            note(axes, 0.85 + 1.75 * segment, -0.15, f"segment {segment + 1}", size=9)
        bounds(axes, (-1.4, 5.5), (-0.5, 5.1))
    return figure


def toy_points() -> tuple[np.ndarray, np.ndarray]:
    """Mean cost and accuracy of one network with an exit at cost 1 and a head at cost 3, at thresholds from 0 to 1.

    Inputs are of evenly spread ease `e`; the exit is right with probability `0.55 + 0.45 e` and that sure of itself,
    the head with `0.9 + 0.1 e`.
    """
    ease = (np.arange(2000) + 0.5) / 2000
    early, late = 0.55 + 0.45 * ease, 0.9 + 0.1 * ease
    rows = []
    for threshold in np.linspace(0.5, 1.01, 18):
        leaves = early >= threshold
        rows.append((np.where(leaves, 1.0, 3.1).mean(), np.where(leaves, early, late).mean()))
    cost, accuracy = np.array(rows).T
    return cost, accuracy


def plotted(width: float = 9.5, height: float = 3.4, panels: int = 2) -> tuple[Figure, list[Axes]]:
    """Panels with axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#e4e7eb", lw=0.8)
        each.set_axisbelow(True)
    return figure, axes


def operating_points() -> Figure:
    """Scores of one trained network, and the points that thresholds make of them."""
    figure, (left, right) = plotted()
    generator = np.random.default_rng(3)
    scores = np.sort(generator.uniform(0.5, 1, 60))
    correct = generator.uniform(size=60) < scores
    for flag, colour, name in ((True, ACCENT, "right at the exit"), (False, WARM, "wrong at the exit")):
        rows = np.flatnonzero(correct == flag)
        left.plot(scores[rows], rows, "o", ms=4, color=colour, label=name)
    for threshold in (0.65, 0.8, 0.92):
        left.axvline(threshold, color=INK, lw=1, ls="--")
    left.set_xlabel("how sure the exit is; dashed: three thresholds")
    left.set_ylabel("tuning inputs")
    left.set_yticks([])
    left.set_title("the score table of one network", loc="left", size=11)
    left.legend(frameon=False, fontsize=8, loc="upper left")
    cost, accuracy = toy_points()
    right.plot(cost, 100 * accuracy, "o-", color=ACCENT, ms=5, lw=1)
    right.plot([3.0], [100 * accuracy[-1]], "s", color=WARM, ms=8)
    right.annotate(
        "the same network, static", (3.0, 100 * accuracy[-1]), (-4, -60), textcoords="offset points", ha="right", size=9
    )
    right.set_xlabel("mean cost")
    right.set_ylabel("accuracy (%)")
    right.set_title("its operating points: one a threshold", loc="left", size=11)
    return figure


def table() -> Figure:
    """Parts that were measured, the path of an input, whole networks that correct the sum."""
    figure, (left, right) = plotted()
    parts = ("stem", "stage 1", "exit 0", "stage 2", "exit 1", "stage 3", "head")
    times = np.array([0.05, 0.12, 0.02, 0.11, 0.02, 0.13, 0.01])
    ran = np.array([1, 1, 1, 1, 1, 0, 0], dtype=bool)
    order = np.arange(len(parts))[::-1]
    left.barh(order, times, color=[ACCENT if each else PALE for each in ran], xerr=0.008, ecolor=INK, height=0.65)
    left.set_yticks(order, parts)
    left.set_xlabel("ms, measured by itself")
    left.set_title(f"an input that leaves at exit 1: {times[ran].sum():.2f} ms", loc="left", size=11)
    generator = np.random.default_rng(0)
    sums = generator.uniform(0.2, 1.4, 16)
    whole = 0.03 + 1.12 * sums + generator.normal(0, 0.02, 16)
    slope, base = np.polyfit(sums, whole, 1)
    line = np.array([0.1, 1.5])
    right.plot(line, line, color=FAINT, lw=1, ls="--")
    right.plot(line, base + slope * line, color=WARM, lw=1.5)
    right.plot(sums, whole, "o", color=ACCENT, ms=5)
    note(right, 1.0, 0.72, "sum alone", colour="#7b8794", size=9)
    note(right, 0.72, 1.35, "corrected", colour=WARM, size=9)
    right.set_xlabel("sum of the parts (ms)")
    right.set_ylabel("whole network (ms)")
    right.set_title("sixteen whole networks correct the sum", loc="left", size=11)
    return figure


def front() -> Figure:
    """A front, what it dominates, and its hypervolume."""
    figure, (axes,) = plotted(6.4, 3.8, 1)
    xs, ys = np.array([0.4, 0.6, 0.95, 1.5]), np.array([88.0, 92.5, 95.0, 96.4])
    worst = (2.0, 84.0)
    steps_x = np.concatenate([np.repeat(xs, 2)[0:], [worst[0]]])
    steps_y = np.concatenate([[worst[1]], np.repeat(ys, 2)[:-1], ys[-1:], ys[-1:]])[: len(steps_x)]
    axes.fill_between(steps_x, worst[1], steps_y, color=PALE)
    axes.plot(steps_x[1:], steps_y[1:], color=ACCENT, lw=1.5)
    axes.plot(xs, ys, "o", color=ACCENT, ms=8, label="front")
    others = np.array([(0.7, 89.0), (0.9, 93.0), (1.3, 94.1), (1.7, 95.8), (1.1, 90.5)])
    axes.plot(others[:, 0], others[:, 1], "o", color=FAINT, ms=6, label="dominated")
    axes.plot([1.25, 1.8], [94.2, 95.9], "s", color=WARM, ms=8, label="static networks")
    axes.plot([worst[0]], [worst[1]], "x", color=INK, ms=8)
    note(axes, 1.93, 84.6, "reference", size=9, ha="right")
    note(axes, 1.35, 87.2, "hypervolume", colour=ACCENT, size=11)
    axes.set_xlabel("mean latency (ms)")
    axes.set_ylabel("accuracy (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def splits() -> Figure:
    """Five splits, five jobs."""
    figure, panels = canvas(9.5, 1.7)
    axes = panels[0]
    told: Sequence[tuple[str, float, str, str]] = (
        ("train", 4.5, "weights", ACCENT),
        ("calibrate", 1.6, "tempers exits", "#4fa3c7"),
        ("tune", 1.8, "both searches look", GOLD),
        ("certify", 1.6, "what is left\nof promises", "#5b8c5a"),
        ("test", 1.8, "opened once,\nat the end", WARM),
    )
    x = 0.0
    for name, width, job, colour in told:
        box(axes, x, 1, name, width=width, colour=colour)
        note(axes, x + width / 2, 0.1, job, size=9)
        x += width + 0.25
    bounds(axes, (-0.2, x), (-0.4, 1.6))
    return figure


PICTURES: Mapping[str, Callable[[], Figure]] = {
    "exits": exits,
    "gates": gates,
    "modes": modes,
    "operating-points": operating_points,
    "table": table,
    "front": front,
    "splits": splits,
}


def draw(folder: Path) -> None:
    """Write all of them; the same bytes each time with one version of matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "dynarch", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        for name, picture in PICTURES.items():
            figure = picture()
            FigureCanvasSVG(figure)  # no pyplot: nothing global, no display
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parents[1] / "pictures")

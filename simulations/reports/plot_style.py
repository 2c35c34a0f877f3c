"""The look that all pictures share: colours, line styles, frame, labels beside lines, the way into a file.

The colours are after M. Okabe and K. Ito, "Color Universal Design" (2008), darkened until a label of the same
colour can be read on white; each stands with its counterpart for a dark page, which `svg` swaps in.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bandit.html_page import THEME

INK, MUTED, GRID, PAPER, BLUE = (THEME[name][0] for name in ("ink", "muted", "grid", "paper", "blue"))
# The undarkened colours, for areas; they work on both pages. The grey is for "all others".
FILLS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
FILL_OTHERS: Final = "#b9bec8"
COUNT: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")
PERCENT: Final = FuncFormatter(lambda value, _: f"{round(100 * value, 2):g} %".replace("-", "−"))


ENGINE_ORDER: Final = 5  # on top
_POLICY_COLOURS: Final = {
    "engine": "blue",
    "plain-thompson": "vermilion",
    "greedy": "purple",
    "beta-thompson": "green",
    "ucb1": "amber",
    "uniform": "muted",
    "oracle": "ink",
}
_SPARE_COLOURS: Final = ("brown", "vermilion", "green", "purple", "amber")
_DASHES: Final = ((0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), (0, (8, 2)))
# 5.2 inches are 374 points, about the pixels of a phone: text of 10 points is 9 pixels there, 15 on a desk.
_WIDTH: Final = 5.2
_FONT: Final = 10.0
STEPS: Final = (1, 2, 2.5, 5, 10)  # between marks, times a power of ten
# A curve 374 points wide gains nothing from more; the file would grow.
_MAX_POINTS: Final = 160
_SETTINGS: Final = {"svg.fonttype": "none", "svg.hashsalt": "creative-bandit", "font.family": "DejaVu Sans"}


def by_factors(low: float, high: float) -> LogLocator:
    """Return marks for a scale of equal factors: 1, 2 and 5 times the powers of ten, or these alone."""
    return LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,), numticks=9)


class Style(NamedTuple):
    """How one policy is drawn everywhere; the engine is thicker, solid and on top."""

    colour: str
    width: float
    dash: Any
    order: int


def policy_styles(names: Sequence[str]) -> dict[str, Style]:
    """Give every policy its colour and dash; known policies look the same in all pictures.

    Args:
        names: the policies of one picture, in any order; a part after a space ("engine k=2") does not count.

    Returns:
        The style of each name.
    """
    bases = {name: name.split(" ")[0] for name in names}
    taken = [_POLICY_COLOURS[base] for base in bases.values() if base in _POLICY_COLOURS]
    styles: dict[str, Style] = {}
    for name, base in bases.items():
        if base == "engine":
            repeated = sum(bases[other] == "engine" for other in styles)
            dash = "-" if not repeated else _DASHES[repeated % len(_DASHES)]
            styles[name] = Style(BLUE, 2.6, dash, ENGINE_ORDER)
            continue
        colour = _POLICY_COLOURS.get(base) or min(_SPARE_COLOURS, key=taken.count)
        taken += [colour] * (base not in _POLICY_COLOURS)
        of_colour = sum(other.colour == THEME[colour][0] for other in styles.values())
        at = of_colour + list(THEME).index(colour)
        styles[name] = Style(THEME[colour][0], 1.5, _DASHES[at % len(_DASHES)], 3)
    return styles


def margin(labels: Iterable[str]) -> float:
    """Return the inches that the longest label takes, within reason."""
    return min(2.2, 0.2 + 0.085 * max(map(len, labels)))


def canvas(height: float, *, left: float = 0.56, right: float = 0.2) -> tuple[Figure, Axes]:
    """Make a figure with one frame; margins are in inches, the height is the frame's."""
    top, bottom = 0.34, 0.5
    total = height + top + bottom
    figure = Figure(figsize=(_WIDTH, total))
    figure.patch.set_visible(False)
    frame = (left / _WIDTH, bottom / total, (_WIDTH - left - right) / _WIDTH, height / total)
    axes = figure.add_axes(frame, facecolor="none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelsize=_FONT, labelcolor=MUTED, pad=5)
    axes.tick_params(axis="x", length=3, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    return figure, axes


def count_impressions(axes: Axes) -> None:
    """Mark whole impressions along the bottom, few enough to be read on a phone."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))
    axes.xaxis.set_major_formatter(COUNT)


def name_axes(axes: Axes, *, x: str, y: str) -> None:
    """Name both axes; the upright one in a line above the frame, where nobody has to turn their head."""
    axes.set_xlabel(x, fontsize=_FONT, color=MUTED, loc="right", labelpad=4)
    note(axes, 0.0, 1.0, y, offset=(0, 9), color=MUTED, ha="left", va="bottom")


def note(
    axes: Axes, x: float, y: float, text: str, *, offset: tuple[float, float] = (0, 0), **style: Any
) -> None:
    """Write text at a place of the frame (fractions), moved by points."""
    look: dict[str, Any] = {"fontsize": _FONT, "color": INK, "va": "center", "annotation_clip": False} | style
    axes.annotate(text, (x, y), xycoords="axes fraction", xytext=offset, textcoords="offset points", **look)


def label_ends(axes: Axes, ends: Mapping[str, float], styles: Mapping[str, Style]) -> None:
    """Write each policy's name at the right end of its line, moved apart where lines end close together."""
    places = axes.transData.transform([(axes.get_xlim()[1], end) for end in ends.values()])
    wanted = axes.transAxes.inverted().transform(places)[:, 1]
    gap = 1.25 * _FONT / axes.bbox.height * axes.figure.dpi / 72
    for name, place in zip(ends, spread(wanted, gap), strict=True):
        weight = "bold" if styles[name].order == ENGINE_ORDER else "normal"
        note(axes, 1.0, place, name, offset=(7, 0), color=styles[name].colour, fontweight=weight)


def spread(wanted: Float[np.ndarray, "labels"], gap: float) -> Float[np.ndarray, "labels"]:
    """Move labels apart until neighbours keep a gap, each as near as that allows to where it belongs.

    With the order kept, places minus rank * gap must not decrease: isotonic regression, by pooling violators.
    Labels stay within [0, 1] while there is room for them; else they hang over at the bottom.

    Args:
        wanted: where each label belongs.
        gap: smallest distance between two labels.

    Returns:
        The places, in the order of `wanted`; of all such places the sum of squared moves is the smallest.

    >>> spread(np.array([0.5, 0.5, 0.0]), 0.2).round(2).tolist()
    [0.4, 0.6, 0.0]
    """
    order = np.argsort(wanted, kind="stable")
    pools: list[tuple[float, int]] = []
    for rank, value in enumerate(wanted[order].tolist()):
        mean, size = value - rank * gap, 1
        while pools and pools[-1][0] > mean:
            before, others = pools.pop()
            mean, size = (mean * size + before * others) / (size + others), size + others
        pools.append((mean, size))
    places = np.empty_like(wanted, dtype=np.float64)
    # Cutting an isotonic fit at bounds gives the best fit within these bounds.
    fit = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    ranks = np.arange(len(order))
    places[order] = np.minimum(np.maximum(fit, 0.0), 1.0 - gap * ranks[-1]) + gap * ranks
    return places


def thinned(n_times: int) -> Int[np.ndarray, "kept"]:
    """Choose evenly spaced columns to draw, the first and the last among them."""
    return np.unique(np.linspace(0, n_times - 1, min(n_times, _MAX_POINTS)).round().astype(np.int64))


def svg(figure: Figure, name: str, description: str) -> str:
    """Turn a figure into an `<svg>` element for a page: ids of its own, colours that follow the page's theme.

    Args:
        figure: any figure.
        name: prefix of the ids, unique on the page: letters, digits and hyphens.
        description: what a screen reader says.

    Returns:
        The element; the same figure gives the same text.
    """
    out = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        FigureCanvasSVG(figure).print_svg(
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for token, (light, _) in THEME.items():
        text = text.replace(light, f"var(--{token}, {light})")
    # Text takes the font of the page.
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    # Pages give the width; the height follows from the viewBox.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{description}"', text, count=1)


def write_png(figure: Figure, path: Path, *, heading: str = "", settings_id: str = "") -> None:
    """Write a figure as a PNG on white, at twice the size of a screen.

    Args:
        figure: any figure.
        path: where to; missing folders are made.
        heading: what it shows, written above it.
        settings_id: of what made it, written below it.
    """
    with mpl.rc_context(_SETTINGS):
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure)
        width, height = figure.get_size_inches()
        words = [
            figure.text(0.1 / width, 1 + 0.12 / height, heading, fontsize=12, fontweight="bold", color=INK),
            figure.text(0.1 / width, -0.2 / height, settings_id, fontsize=7, color=MUTED),
        ]
        try:
            # Wide enough for the words around the frame and the labels that hang over it.
            figure.savefig(
                path,
                dpi=192,
                facecolor="white",
                bbox_inches="tight",
                pad_inches=0.15,
                metadata={"Software": None, "Description": settings_id},
            )
        finally:
            for one in words:
                one.remove()

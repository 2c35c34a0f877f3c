"""What came out, in plain words: how far the engine is ahead of the best of the others, and is that luck?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulations.reports.results import errors_of_95


class Baseline(NamedTuple):
    """One policy beside the engine, on the same runs; amounts are fractions.

    Attributes:
        name: the policy.
        ahead: by how much the engine is better; below 0 it is worse.
        low: lower end of the 95 % interval of that; minus infinite where a single run tells nothing.
        high: upper end.
    """

    name: str
    ahead: float
    low: float
    high: float

    @property
    def is_established(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def by_difference(name: str, ahead: float, error: float, n: int) -> Baseline:
    """Return a baseline of whom a mean difference of n paired runs is known, with its standard error."""
    half = errors_of_95(n) * error if n > 1 else float("inf")
    return Baseline(name, ahead, ahead - half, ahead + half)


def by_ratio(name: str, saved: float, error: float, n: int) -> Baseline:
    """Return a baseline of whom 1 − engine's / its own is known, with the standard error over n paired runs.

    The interval is one of the ratio's logarithm, so that nobody saves more than all.
    """
    ratio = 1 - saved
    if n < 2 or ratio <= 0:
        return Baseline(name, saved, float("-inf"), float("inf"))
    factor = float(np.exp(errors_of_95(n) * error / ratio))
    return Baseline(name, saved, 1 - ratio * factor, 1 - ratio / factor)


def conclude(
    baselines: Sequence[Baseline], *, verb: str, better: str, worse: str, what: str = "", unit: str = " %"
) -> str:
    """Say how the engine compares with the best of the others, and with all of them.

    Args:
        baselines: the others; the order counts between equals.
        verb: what was done, as "lost".
        better: what the engine's amount is if it is ahead, as "fewer".
        worse: what it is if it is behind.
        what: the amount is of, as "clicks".
        unit: of amounts, which are hundredths here.

    Returns:
        A sentence or two; nothing without others.

    Example:
        >>> words = {"verb": "lost", "better": "fewer", "worse": "more", "what": "clicks"}
        >>> conclude([by_difference("ucb1", 0.5, 0.1, 8)], **words)  # doctest: +NORMALIZE_WHITESPACE
        'The engine lost 50 % fewer clicks than ucb1 (95 %: from 26 % fewer to 74 % fewer);
        the difference is established.'
    """
    if not baselines:
        return ""
    best = min(baselines, key=lambda baseline: baseline.ahead)
    digits = next((digits for digits, least in enumerate((0.1, 0.01)) if abs(best.ahead) >= least), 2)

    def amount(value: float) -> str:
        return f"{100 * abs(value):.{digits}f}{unit} {better if value >= 0 else worse}"

    text = f"The engine {verb} {amount(best.ahead)}{what and ' ' + what} than {best.name}"
    text += ", the best of the others" if len(baselines) > 1 else ""
    if not np.isfinite(best.high):
        return f"{text}; a single run cannot tell whether that is luck."
    ends = (best.low, best.high) if best.ahead >= 0 else (best.high, best.low)
    text += f" (95 %: from {amount(ends[0])} to {amount(ends[1])}); the difference is "
    text += "established." if best.is_established else "not established, it may be luck."
    return text + _all_of_them(baselines)


def _all_of_them(baselines: Sequence[Baseline]) -> str:
    """Say how many of the others are better or worse beyond luck, each comparison taken by itself."""
    if len(baselines) < 2:
        return ""
    ahead = sum(baseline.low > 0 for baseline in baselines)
    behind = sum(baseline.high < 0 for baseline in baselines)
    n_open = len(baselines) - ahead - behind
    counts = ((ahead, "ahead of {}"), (behind, "behind {}"), (n_open, "undecided with {}"))
    parts = [words.format(count) for count, words in counts if count]
    return f" Of the {len(baselines)} others, each taken by itself, it is {', '.join(parts)}."

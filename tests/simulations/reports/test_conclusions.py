"""Plain words: what they say follows from the numbers."""

import numpy as np
import pytest

from simulations.reports.conclusions import by_difference, by_ratio, conclude
from simulations.reports.results import errors_of_95

WORDS = {"verb": "lost", "better": "fewer", "worse": "more", "what": "clicks"}


def test_intervals_are_students() -> None:
    # A table of Student's t: 97.5 % of 1, 7 and 23 degrees of freedom.
    assert [errors_of_95(n) for n in (2, 8, 24)] == pytest.approx([12.706, 2.365, 2.069], abs=5e-4)
    assert errors_of_95(1) == float("inf")
    baseline = by_difference("ucb1", 0.5, 0.1, 8)
    assert (baseline.low, baseline.high) == pytest.approx((0.2635, 0.7365), abs=1e-4)


def test_interval_of_a_ratio_never_saves_more_than_all() -> None:
    baseline = by_ratio("ucb1", 0.12, 0.3, 4)
    # log 0.88 ± 3.1824 · 0.3/0.88.
    reach = np.exp(3.182446 * 0.3 / 0.88)
    assert (baseline.low, baseline.high) == pytest.approx((1 - 0.88 * reach, 1 - 0.88 / reach), rel=1e-5)
    assert baseline.high < 1


@pytest.mark.parametrize(
    ("ahead", "error", "words"),
    [
        (
            0.5,
            0.1,
            "50 % fewer clicks than ucb1 (95 %: from 26 % fewer to 74 % fewer); the difference is est",
        ),
        (
            0.2,
            0.1,
            "20 % fewer clicks than ucb1 (95 %: from 4 % more to 44 % fewer); the difference is not est",
        ),
        (-0.5, 0.1, "50 % more clicks than ucb1 (95 %: from 26 % more to 74 % more); the difference is est"),
        (0.02, 0.004, "2.0 % fewer clicks than ucb1 (95 %: from 1.1 % fewer to 2.9 % fewer); the diff"),
    ],
)
def test_one_baseline(ahead: float, error: float, words: str) -> None:
    assert conclude([by_difference("ucb1", ahead, error, 8)], **WORDS).startswith(f"The engine lost {words}")


def test_the_best_of_several_is_named_and_all_are_counted() -> None:
    known = (("a", 0.5, 0.1), ("b", -0.1, 0.1), ("c", 0.4, 0.1), ("d", -0.05, 0.01))
    text = conclude([by_difference(*one, 8) for one in known], **WORDS)
    assert text.startswith(
        "The engine lost 10 % more clicks than b, the best of the others (95 %: from 14 % fewer to 34 % more)"
    )
    assert text.endswith(
        "Of the 4 others, each taken by itself, it is ahead of 2, behind 1, undecided with 1."
    )


def test_a_single_run_tells_nothing_and_nobody_is_compared_with_nobody() -> None:
    text = conclude([by_ratio("a", 0.5, 0.0, 1), by_ratio("b", 0.6, 0.0, 1)], **WORDS)
    assert text == (
        "The engine lost 50 % fewer clicks than a, the best of the others; "
        "a single run cannot tell whether that is luck."
    )
    assert conclude([], **WORDS) == ""

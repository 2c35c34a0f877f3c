"""Real logs as worlds: an archive of past A/B tests, each a campaign whose observed rates are the truth.

Protocol: variants of a test that share a headline are pooled; tests are ordered by (first week, id) and cut
at 20 % and 40 %. A policy's prior comes from the earlier tests' counts; a headline that occurs there is not
scored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.csv_rows import Line, read_rows
from bandit.errors import listed
from bandit.features.content_pca import Components
from bandit.features.design import PriorScales, design_row, scale_groups, weight_prior
from bandit.posterior import Rows, State, predict, refit
from simulations.errors import ArchiveError
from simulations.policies.base import Problems

COLUMNS = ("test_id", "week", "headline", "impressions", "clicks")
TUNE_FROM, SCORE_FROM = 0.2, 0.4  # of the tests in order
N_BLANK_ARMS = 64
FAULTY_WEEKS = (201326, 201402)  # randomisation fault disclosed by the archive in 2024


class PastTest(NamedTuple):
    """One A/B test: distinct headlines with their pooled counts."""

    test_id: str
    week: int
    headlines: tuple[str, ...]
    impressions: Float[np.ndarray, "headlines"]
    clicks: Float[np.ndarray, "headlines"]

    @property
    def truth(self) -> Float[np.ndarray, "headlines"]:
        """Click rates taken as true: max(clicks, ¼) / impressions."""
        return np.maximum(self.clicks, 0.25) / self.impressions

    @property
    def is_faulty(self) -> bool:
        """Whether the test ran in the weeks of faulty randomisation."""
        return FAULTY_WEEKS[0] <= self.week <= FAULTY_WEEKS[1]


def read_archive(path: Path) -> list[PastTest]:
    """Read a file of A/B tests, pooled and in order.

    Args:
        path: CSV, gzipped when its name ends in .gz, with columns test_id, week (201446), headline,
            impressions, clicks; others are ignored.

    Returns:
        Tests ordered by (first week, id), headlines in order of appearance.

    Raises:
        ArchiveError: not a readable CSV, missing columns, or bad lines: all are counted, the first 20 named.
        FileNotFoundError: there is no such file.
    """
    weeks: dict[str, int] = {}
    counts: dict[str, dict[str, list[int]]] = {}
    with read_rows(path, ArchiveError) as rows:
        if missing := rows.missing(COLUMNS):
            raise ArchiveError(
                f"{path}: expected the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}"
            )
        for row in rows.parsed(_checked, (ArchiveError,)):
            test = row["test_id"]
            weeks[test] = min(weeks.get(test, 999999), int(row["week"]))
            pooled = counts.setdefault(test, {}).setdefault(row["headline"], [0, 0])
            pooled[0] += int(row["impressions"])
            pooled[1] += int(row["clicks"])
    if rows.problems:
        raise ArchiveError(f"{path}: {len(rows.problems)} bad lines{listed(rows.problems)}")
    return [
        _past_test(test, weeks[test], counts[test]) for test in sorted(counts, key=lambda t: (weeks[t], t))
    ]


def _checked(row: Line) -> Line:
    """Return a line that can be used."""
    if None in row or any(row[name] is None for name in COLUMNS):
        much = "more" if None in row else "fewer"
        raise ArchiveError(f"{much} columns than the header; a text with a comma needs quotes")
    numbers = {name: row[name] or "" for name in ("week", "impressions", "clicks")}
    not_whole = [
        f"{name} {value!r}" for name, value in numbers.items() if not value.isascii() or not value.isdigit()
    ]
    if not_whole:
        raise ArchiveError(f"expected a whole number of at least 0, got {', '.join(not_whole)}")
    if not row["headline"]:
        raise ArchiveError("the headline is empty")
    if int(numbers["impressions"]) == 0:
        raise ArchiveError("0 impressions")
    if int(numbers["clicks"]) > int(numbers["impressions"]):
        raise ArchiveError(f"{numbers['clicks']} clicks on {numbers['impressions']} impressions")
    return row


def _past_test(test_id: str, week: int, counts: Mapping[str, list[int]]) -> PastTest:
    impressions, clicks = np.asarray(list(counts.values()), float).T
    return PastTest(test_id, week, tuple(counts), impressions, clicks)


class Split(NamedTuple):
    """Tests that the prior may learn from, and later tests to play."""

    history: list[PastTest]
    played: list[PastTest]


def split(tests: list[PastTest], part: str) -> Split:
    """Return history and played tests.

    Args:
        tests: all tests in order.
        part: "tune" (history the first 20 %, played the next 20 %) or "score" (the first 40 %, the rest).

    Returns:
        The split; played tests have at least two headlines, none of which occurs in the history.
    """
    tune, score = (round(fraction * len(tests)) for fraction in (TUNE_FROM, SCORE_FROM))
    first, last = (tune, score) if part == "tune" else (score, len(tests))
    history = tests[:first]
    seen = {headline for test in history for headline in test.headlines}
    unseen = [_without(test, seen) for test in tests[first:last] if len(test.headlines) > 1]
    return Split(history, [test for test in unseen if len(test.headlines) > 1])


def _without(test: PastTest, seen: set[str]) -> PastTest:
    keep = [i for i, headline in enumerate(test.headlines) if headline not in seen]
    headlines = tuple(test.headlines[i] for i in keep)
    return test._replace(headlines=headlines, impressions=test.impressions[keep], clicks=test.clicks[keep])


def archive_prior(
    history: list[PastTest], vectors: Mapping[str, np.ndarray], components: Components, scales: PriorScales
) -> State:
    """Fit posterior and scales to the history's counts; the last 64 arms and last campaign have no data.

    Args:
        history: tests to learn from.
        vectors: embedding of each headline.
        components: the content components.
        scales: prior scales before the history.

    Returns:
        The state after a refit, in double precision.
    """
    rows = [design(test, vectors, components) for test in history]
    campaign = np.repeat(np.arange(len(history)), [len(row) for row in rows])
    features = np.concatenate(rows)
    n_rows = -(-len(features) // 256) * 256
    padding = n_rows - len(features)

    def padded(values: np.ndarray) -> Array:
        return jnp.asarray(np.pad(values, [(0, padding)] + [(0, 0)] * (values.ndim - 1)))

    data = Rows(
        features=padded(features.astype(float)),
        arm=padded(np.arange(len(features))),
        campaign=padded(campaign),
        impressions=padded(np.concatenate([test.impressions for test in history])),
        clicks=padded(np.concatenate([test.clicks for test in history])),
    )
    arm_campaign = jnp.asarray(np.pad(campaign, (0, padding + N_BLANK_ARMS), constant_values=len(history)))
    prior = weight_prior(scales, with_context=False, n_content=components.basis.shape[1])
    groups = jnp.asarray(scale_groups(with_context=False, n_content=components.basis.shape[1]))
    return jax.jit(refit, static_argnums=3)(prior, data, arm_campaign, len(history) + 1, groups)[0]


def problems(
    tests: list[PastTest],
    state: State,
    vectors: Mapping[str, np.ndarray],
    components: Components,
    n_arms: int,
    past_rate: float,
) -> Problems:
    """Return tests as problems, each starting from the history's posterior as a new campaign of new arms.

    Args:
        tests: of at most `n_arms` headlines.
        state: from `archive_prior`.
        vectors: embedding of each headline.
        components: the content components.
        n_arms: padded number of arms.
        past_rate: clicks per impression in the history.
    """
    truth = np.zeros((len(tests), n_arms))
    features = np.zeros((len(tests), n_arms, state.weights.shape[0]))
    eligible = np.zeros((len(tests), n_arms), bool)
    for i, test in enumerate(tests):
        k = len(test.headlines)
        truth[i, :k], eligible[i, :k], features[i, :k] = test.truth, True, design(test, vectors, components)

    blank_arms = state.arm_precision.shape[0] - 1 - jnp.arange(n_arms)
    blank_campaign = jnp.full(n_arms, state.campaign_precision.shape[0] - 1)
    joint = jax.jit(jax.vmap(lambda rows: predict(state, rows, blank_arms, blank_campaign)))
    rates = jnp.full(len(tests), past_rate)
    return Problems(jnp.asarray(truth), jnp.asarray(eligible), joint(jnp.asarray(features)), rates)


def click_rate(tests: list[PastTest]) -> float:
    """Return clicks per impression over all headlines of some tests."""
    return sum(test.clicks.sum() for test in tests) / sum(test.impressions.sum() for test in tests)


def design(test: PastTest, vectors: Mapping[str, np.ndarray], components: Components) -> np.ndarray:
    """Return φ of a test's headlines, [headlines, 129]."""
    content = components.project(np.stack([vectors[headline] for headline in test.headlines]))
    row = jax.vmap(design_row, in_axes=(None, 0, None))
    return np.asarray(
        row(jnp.zeros(0, content.dtype), jnp.asarray(content), jnp.asarray(content.mean(axis=0)))
    )

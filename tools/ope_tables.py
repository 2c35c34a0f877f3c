"""The tables of docs/evaluation.md: `python -m tools.ope_tables random_men.csv.gz bts_men.csv.gz`.

Without files, only the table over many logs.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bandit.decision_log.logs import Log
from bandit.decision_log.open_bandit import read_open_bandit
from simulations.ope.evaluation import BOUNDED, Estimate, evaluate
from simulations.ope.targets import shares_of
from tools.ope_coverage import N_LOGS, NAMES, estimate_many

COMPARED = ("snips", "dr", "switch-dr")


def coverage_rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each estimator: bias, spread, and how many intervals hold the truth."""
    found = estimate_many()
    yield ("estimator", "mean − truth", "in standard errors", "sd", "95 % interval holds", "Bernstein holds")
    for i, name in enumerate(NAMES):
        values = found.values[:, i]
        bias, spread = values.mean() - found.truth, values.std(ddof=1)
        held = np.mean((found.low[:, i] <= found.truth) & (found.truth <= found.high[:, i]))
        bounds = found.bernstein[:, BOUNDED.index(name)].T if name in BOUNDED else None
        yield (
            f"`{name}`",
            f"{100 * bias:+.3f} %",
            f"{bias / spread * N_LOGS**0.5:+.1f}",
            f"{100 * spread:.2f} %",
            f"{100 * held:.1f} %",
            ""
            if bounds is None
            else f"{100 * np.mean((bounds[0] <= found.truth) & (found.truth <= bounds[1])):.1f} %",
        )


def cross_rows(logs: dict[str, Log]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each log of two policies that really ran, evaluated for the other one."""
    yield ("log", "policy", "its own CTR", *COMPARED, "largest difference, of its joint 95 % interval")
    for name, other in (list(logs), list(logs)[::-1]):
        found = evaluate(logs[name], shares_of(logs[other], logs[name]), estimators=COMPARED)
        truth, error = mean_of(logs[other])
        largest = max(joint_share(one, truth, error) for one in found.estimates)
        yield (
            name,
            other,
            shown(truth, error),
            *(shown(*known(one)) for one in found.estimates),
            f"{largest:.2f}",
        )


def mean_of(log: Log) -> tuple[float, float]:
    """Return what the policy of a log earned, and the standard error."""
    return float(log.reward.mean()), float(log.reward.std(ddof=1) / len(log.reward) ** 0.5)


def joint_share(one: Estimate, truth: float, error: float) -> float:
    """Return how far an estimate is from what was earned, in half widths of their joint 95 % interval."""
    value, spread = known(one)
    return abs(value - truth) / (1.96 * float(np.hypot(spread, error)))


def known(one: Estimate) -> tuple[float, float]:
    """Return value and standard error, NaN where no decision counts."""
    return one.value or np.nan, one.standard_error or np.nan


def shown(value: float, error: float) -> str:
    """Return a rate with its standard error."""
    return f"{100 * value:.2f} % ± {100 * error:.2f}"


def markdown(rows: Iterator[Sequence[str]]) -> str:
    """Return rows as a table, the first one its header."""
    header = next(rows)
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(files: Sequence[str]) -> None:
    """Print the tables."""
    sys.stdout.write(markdown(coverage_rows()))
    if files:
        random, bts = (read_open_bandit(Path(file)) for file in files)
        sys.stdout.write("\n" + markdown(cross_rows({"random": random, "BTS": bts})))


if __name__ == "__main__":
    main(sys.argv[1:])

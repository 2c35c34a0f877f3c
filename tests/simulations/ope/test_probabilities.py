"""A policy's own probabilities become the target, and a file that does not fit the log is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.decision_log.logs import Log
from bandit.errors import LogError
from simulations.ope.probabilities import read_probabilities

LOG = Log(
    ("cold", "warm"),
    None,
    np.array(["a", "b", "c"]),
    np.array([0, 1, 1]),
    np.array([0.0, 1.0, 0.0]),
    np.full(3, 0.5),
    np.full((3, 2), 0.5),
    np.ones((3, 2), bool),
    np.zeros(3, int),
    np.ones((3, 1)),
)
EACH = ("decision_id,creative,probability", "a,warm,1", "b,warm,0.25", "b,cold,0.75", "c,cold,1")


def written(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_one_policy_for_all_decisions_or_one_for_each(tmp_path: Path) -> None:
    fixed = written(tmp_path / "fixed.csv", ("creative,probability", "warm,0.9", "cold,0.1"))
    assert_allclose(read_probabilities(fixed, LOG), [[0.1, 0.9]] * 3)
    each = written(tmp_path / "each.csv", EACH)
    assert_allclose(read_probabilities(each, LOG), [[0, 1], [0.75, 0.25], [1, 0]])
    assert_allclose(read_probabilities(each, LOG.part(slice(1, None))), [[0.75, 0.25], [1, 0]])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (("creative,share", "warm,1"), "these columns are missing: probability"),
        (("creative,probability",), "found none"),
        (("creative,probability", "warm,1.5"), "line 2: expected a probability of 0 to 1, got 1.5"),
        (("creative,probability", "warm,nan"), "line 2: expected a probability of 0 to 1, got nan"),
        (("creative,probability", "warm"), "line 2: expected a probability of 0 to 1, got none"),
        (("creative,probability", "warm,1", "warm,0"), "line 3: creative 'warm' has a probability already"),
        (("creative,probability", "warm,0.5"), "every decision: its probabilities sum to 0.5, not to 1"),
        (
            ("creative,probability", "warm,0.8", "hot,0.15", "mild,0.05"),
            "20.0 % of the policy's choices are creatives that this log never shows: hot, mild",
        ),
        (EACH[:-1], "decision 'c': it has no probabilities"),
        ((*EACH, "c,warm,0.5"), "decision 'c': its probabilities sum to 1.5, not to 1"),
        ((*EACH, "c,hot,0.6"), "20.0 % of the policy's choices are creatives that this log never shows: hot"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, lines: Sequence[str], problem: str) -> None:
    with pytest.raises(LogError) as raised:
        read_probabilities(written(tmp_path / "policy.csv", lines), LOG)
    assert problem in str(raised.value)

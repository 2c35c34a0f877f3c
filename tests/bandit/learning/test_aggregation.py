"""Pooled outcomes: hand-counted, and the posterior of a batch learnt pooled against row by row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.features.content_tables import ContentTables
from bandit.features.context import context_vector
from bandit.features.design import N_CONTENT, PriorScales, weight_prior
from bandit.jax_runtime import double_precision
from bandit.learning.aggregation import BinomialCount, aggregate
from bandit.learning.kernels import CountedRows, apply_change, learn_batch
from bandit.padding import padded_size
from bandit.posterior import SiteInfo, State, initial_state
from storage import ContextRecord, ContextSlotRecord
from tests.bandit.posterior.small import named_arrays

SIZES = (8, 32, 64, 128, 256)
LEVELS = (None, "mobile", "desktop")
SCHEMA = ContextRecord(
    fields={"device": "string", "unseen": "string"},
    slots=tuple(
        ContextSlotRecord(
            slot=i, field="device", level=level, mean=None, sd=None, version=i + 1, moments_version=None
        )
        for i, level in enumerate(LEVELS)
    ),
    version=3,
)
ARM = {70 + i: i for i in range(10)}  # creatives have ids of their own
ARM_CAMPAIGN = np.array([0, 1] * 5)
TOLERANCE = 1e-11


def pooled(*counted: BinomialCount) -> CountedRows:
    return aggregate(counted, SCHEMA, ARM, ARM_CAMPAIGN, partial(padded_size, sizes=SIZES))


def test_counts_of_what_the_model_sees_alike_are_added() -> None:
    mobile, watch = {"device": "mobile"}, {"device": "watch"}
    rows = pooled(
        BinomialCount(71, mobile, 3, 1, 0),
        BinomialCount(72, mobile, 3, 1, 1),
        BinomialCount(71, watch, 3, 1, 1),
        BinomialCount(71, mobile, 3, 1, 1),
        BinomialCount(71, {"device": "ring", "unseen": "x"}, 3, 0.5, 0.25),  # another level without a slot
        BinomialCount(71, mobile, 1, 1, 0),  # made before "mobile" had its slot
    )
    assert rows.arm.tolist() == [1, 2, 1, 0, 0, 0, 0, 0]
    assert rows.campaign.tolist() == [1, 0, 1, 0, 0, 0, 0, 0]
    assert rows.impressions.tolist() == [2, 1, 2.5, 0, 0, 0, 0, 0]
    assert rows.clicks.tolist() == [1, 1, 1.25, 0, 0, 0, 0, 0]
    for row, context in enumerate((mobile, mobile, watch)):
        np.testing.assert_array_equal(rows.context[row], context_vector(context, SCHEMA))
    assert not np.any(rows.context[3:])


def test_nothing_to_pool_is_all_padding() -> None:
    rows = pooled()
    assert [len(column) for column in rows] == [SIZES[0]] * len(CountedRows._fields)
    assert not np.any(rows.impressions)


@pytest.mark.slow
def test_a_batch_learnt_pooled_gives_the_posterior_of_its_single_rows() -> None:
    random = np.random.default_rng(3)
    with double_precision():
        content = random.normal(size=(16, N_CONTENT)) / 8
        tables = ContentTables(jnp.asarray(content), jnp.asarray(content[:2]))
        state, single = (initial_state(weight_prior(PriorScales()), 16, 2) for _ in range(2))
        for _ in range(4):
            counted = [
                BinomialCount(
                    int(creative),
                    {"device": ("mobile", "desktop", "watch")[device]},
                    3,
                    1,
                    int(random.random() < 0.1),
                )
                for creative, device in zip(
                    random.choice(list(ARM), 256), random.integers(0, 3, 256), strict=True
                )
            ]
            rows = pooled(*counted)
            assert len(rows.arm) == 32  # 30 kinds of rows at most
            assert rows.impressions.sum() == 256
            change, info = learn_batch(state, tables, rows)
            other, expected = learn_batch(single, tables, _row_by_row(counted))
            state, single = apply_change(state, change), apply_change(single, other)
            assert_same(state, single)
            _assert_same_info(info, expected)


def _row_by_row(counted: list[BinomialCount]) -> CountedRows:
    arm = np.array([ARM[each.creative_id] for each in counted])
    return CountedRows(
        *map(
            jnp.asarray,
            (
                np.stack([context_vector(each.context, SCHEMA) for each in counted]),
                arm,
                ARM_CAMPAIGN[arm],
                np.ones(len(counted)),
                np.array([float(each.clicks) for each in counted]),
            ),
        )
    )


def assert_same(ours: State, theirs: State) -> None:
    """Compare means by the posterior's sd, all other arrays by their largest number."""
    sd = np.sqrt(np.diag(np.linalg.inv(np.asarray(theirs.reduced_precision))))
    assert np.max(np.abs(ours.weights - theirs.weights) / sd) < TOLERANCE
    others = named_arrays(theirs)
    for name, array in named_arrays(ours).items():
        limit = TOLERANCE * max(1.0, np.max(np.abs(others[name])))
        assert_allclose(array, others[name], rtol=0, atol=limit, err_msg=name)


def _assert_same_info(ours: SiteInfo, theirs: SiteInfo) -> None:
    assert ours.passes == theirs.passes
    for left, right in zip(jax.device_get(ours), jax.device_get(theirs), strict=True):
        assert_allclose(left, right, rtol=1e-9)

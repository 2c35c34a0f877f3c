import jax.numpy as jnp
import numpy as np
import pytest

from bandit.features.design import (
    DIM,
    DIM_WITHOUT_CONTEXT,
    N_CONTENT,
    N_CONTEXT,
    PriorScales,
    design_row,
    weight_prior,
)

pytestmark = pytest.mark.usefixtures("double_precision")


def test_design_row_block_by_block() -> None:
    random = np.random.default_rng(0)
    context, content, mean = (random.normal(size=n) for n in (N_CONTEXT, N_CONTENT, N_CONTENT))
    row = np.asarray(design_row(*map(jnp.asarray, (context, content, mean))))
    assert row.shape == (DIM,) == (209,)
    expected = [1.0, *context, *content, *mean]
    # Slot by slot: all four products of the first slot, then of the second.
    expected += [slot * component for slot in context for component in content[:4]]
    np.testing.assert_array_equal(row, expected)


def test_design_row_without_context() -> None:
    content, mean = np.random.default_rng(0).normal(size=(2, N_CONTENT))
    row = np.asarray(design_row(jnp.zeros(0), jnp.asarray(content), jnp.asarray(mean)))
    assert row.shape == (DIM_WITHOUT_CONTEXT,) == (129,)
    np.testing.assert_array_equal(row, [1.0, *content, *mean])


def test_an_empty_context_adds_nothing() -> None:
    content, mean = map(jnp.asarray, np.random.default_rng(0).normal(size=(2, N_CONTENT)))
    row = np.asarray(design_row(jnp.zeros(N_CONTEXT), content, mean))
    without = np.asarray(design_row(jnp.zeros(0), content, mean))
    np.testing.assert_array_equal(np.delete(row, np.s_[1:17])[:129], without)
    assert not row[1:17].any()
    assert not row[145:].any()


@pytest.mark.parametrize(("with_context", "dim"), [(True, DIM), (False, DIM_WITHOUT_CONTEXT)])
def test_prior_gives_every_block_its_scale(with_context: bool, dim: int) -> None:
    scales = PriorScales(
        intercept=1.0,
        context=2.0,
        content=3.0,
        campaign_mean=4.0,
        interaction=5.0,
        campaign=6.0,
        arm=7.0,
        base_rate=0.1,
    )
    prior = weight_prior(scales, with_context=with_context)
    context = [2.0] * 16 if with_context else []
    interactions = [5.0] * 64 if with_context else []
    np.testing.assert_array_equal(prior.scale, [1.0, *context, *[3.0] * 64, *[4.0] * 64, *interactions])
    np.testing.assert_allclose(prior.mean, [np.log(1 / 9)] + [0.0] * (dim - 1))
    assert (float(prior.campaign_scale), float(prior.arm_scale)) == (6.0, 7.0)
    assert {leaf.dtype for leaf in prior} == {np.dtype(np.float64)}


def test_default_scales_are_those_of_the_design() -> None:
    assert PriorScales()._asdict() == {
        "intercept": 0.7,
        "context": 0.3,
        "content": 0.22,
        "campaign_mean": 0.22,
        "interaction": 0.3,
        "campaign": 0.6,
        "arm": 0.25,
        "base_rate": 0.02,
    }

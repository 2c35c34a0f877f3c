"""Given its sites, the filter is the exact joint Gaussian: held against one dense solve over all unknowns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit.posterior import (
    Gaussian,
    Prior,
    Rows,
    Sites,
    State,
    absorb,
    condition,
    effects,
    eliminate,
    find_sites,
    grow,
    predict,
    predict_marginals,
    update,
)
from bandit.posterior.refit import assemble
from tests.bandit.posterior.dense import Dense, add_sites, dense_prior, design, learn_in_weight_space, logits
from tests.bandit.posterior.small import (
    ARM_CAMPAIGN,
    BATCH,
    DIM,
    N_ARMS,
    N_CAMPAIGNS,
    a_batch,
    a_prior,
    assert_same_state,
    empty_state,
    initial_state_jit,
    named_arrays,
)

pytestmark = pytest.mark.usefixtures("double_precision")

EXACT = {"rtol": 1e-9, "atol": 1e-9}

absorb_jit, condition_jit, effects_jit, find_sites_jit, marginals_jit, predict_jit, update_jit = map(
    jax.jit, (absorb, condition, effects, find_sites, predict_marginals, predict, update)
)


class Learnt(NamedTuple):
    """A state after some batches, with the batches and the sites they got."""

    state: State
    batches: list[Rows]
    sites: list[Sites]


def learn(n_batches: int = 4, seed: int = 0) -> Learnt:
    random = np.random.default_rng(seed)
    state = empty_state()
    batches = [a_batch(random) for _ in range(n_batches)]
    sites = []
    for rows in batches:
        before = predict_jit(state, rows.features, rows.arm, rows.campaign)
        sites.append(find_sites_jit(before, rows.impressions, rows.clicks)[0])
        state = absorb_jit(state, rows, sites[-1])
    return Learnt(state, batches, sites)


@pytest.fixture(scope="module")
def learnt(double_precision: None) -> Learnt:
    return learn()


@pytest.fixture(scope="module")
def dense(learnt: Learnt) -> Dense:
    state = dense_prior(a_prior(), N_ARMS, N_CAMPAIGNS)
    for rows, sites in zip(learnt.batches, learnt.sites, strict=True):
        matrix = design(rows, N_ARMS, N_CAMPAIGNS)
        state = add_sites(state, matrix, np.asarray(sites.weight), np.asarray(sites.information))
    return state


def queries() -> Rows:
    """Return one row per arm, new arms and a new campaign among them, and some arms twice."""
    arm = np.concatenate([np.arange(N_ARMS), np.arange(0, N_ARMS, 2)])
    features = np.random.default_rng(9).normal(size=(len(arm), DIM))
    none = np.zeros(len(arm))
    return Rows(*map(jnp.asarray, (features, arm, ARM_CAMPAIGN[arm], none, none)))


def test_logits_of_all_arms_are_those_of_the_dense_gaussian(learnt: Learnt, dense: Dense) -> None:
    rows = queries()
    mean, covariance = logits(dense, design(rows, N_ARMS, N_CAMPAIGNS))
    joint = predict_jit(learnt.state, rows.features, rows.arm, rows.campaign)
    np.testing.assert_allclose(joint.mean, mean, **EXACT)
    np.testing.assert_allclose(joint.covariance, covariance, **EXACT)
    marginal_mean, marginal_variance = marginals_jit(learnt.state, rows.features, rows.arm, rows.campaign)
    np.testing.assert_allclose(marginal_mean, mean, **EXACT)
    np.testing.assert_allclose(marginal_variance, np.diag(covariance), **EXACT)


def test_weights_and_effects_are_those_of_the_dense_gaussian(learnt: Learnt, dense: Dense) -> None:
    state = learnt.state
    mean, covariance = dense.mean, dense.covariance
    np.testing.assert_allclose(state.weights, mean[:DIM], **EXACT)
    half = np.linalg.inv(np.asarray(state.factor))
    np.testing.assert_allclose(half.T @ half, covariance[:DIM, :DIM], **EXACT)
    terms = effects_jit(state, jnp.arange(N_ARMS), jnp.asarray(ARM_CAMPAIGN))
    np.testing.assert_allclose(terms.campaign, mean[DIM : DIM + N_CAMPAIGNS][ARM_CAMPAIGN], **EXACT)
    np.testing.assert_allclose(terms.arm, mean[DIM + N_CAMPAIGNS :], **EXACT)


def test_without_data_a_logit_has_its_prior() -> None:
    rows = queries()
    state = empty_state()
    joint = predict_jit(state, rows.features, rows.arm, rows.campaign)
    prior = a_prior()
    same_campaign = np.equal.outer(np.asarray(rows.campaign), np.asarray(rows.campaign))
    same_arm = np.equal.outer(np.asarray(rows.arm), np.asarray(rows.arm))
    by_hand = (np.asarray(rows.features) * np.asarray(prior.scale) ** 2) @ np.asarray(rows.features).T
    np.testing.assert_allclose(joint.mean, np.asarray(rows.features) @ np.asarray(prior.mean), **EXACT)
    np.testing.assert_allclose(joint.covariance, by_hand + 0.36 * same_campaign + 0.0625 * same_arm, **EXACT)


def test_one_arm_one_weight_by_hand() -> None:
    # One row of weight 4 and information 2 on a logit that is w + b + e, with variances ¼, ¼ and ½:
    # precision 1 + 4, mean 2/5, and each part moves by its share of the logit's variance.
    half = jnp.asarray(0.5)
    prior = Prior(jnp.zeros(1), jnp.full(1, 0.5), half, jnp.sqrt(half))
    rows = Rows(jnp.ones((1, 1)), jnp.zeros(1, int), jnp.zeros(1, int), jnp.ones(1), jnp.ones(1))
    state = absorb_jit(initial_state_jit(prior, 1, 1), rows, Sites(jnp.full(1, 4.0), jnp.full(1, 2.0)))
    mean, variance = marginals_jit(state, rows.features, rows.arm, rows.campaign)
    assert float(mean[0]) == pytest.approx(0.4, abs=1e-12)
    assert float(variance[0]) == pytest.approx(0.2, abs=1e-12)
    terms = effects_jit(state, rows.arm, rows.campaign)
    parts = (float(state.weights[0]), float(terms.campaign[0]), float(terms.arm[0]))
    assert parts == pytest.approx((0.1, 0.1, 0.2), abs=1e-12)


def test_all_sites_at_once_are_the_same_state(learnt: Learnt) -> None:
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *learnt.batches)
    sites = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *learnt.sites)
    at_once = jax.jit(assemble, static_argnums=4)(
        a_prior(), rows, sites, jnp.asarray(ARM_CAMPAIGN), N_CAMPAIGNS
    )
    assert_same_state(learnt.state, at_once, rtol=1e-9, atol=1e-9)


def test_what_follows_from_the_information_can_be_rebuilt(learnt: Learnt) -> None:
    # As when a stored posterior is read: Schur sums, factor and means are not kept, here set to nonsense.
    derived = ("campaign_precision", "campaign_cross", "campaign_information")
    derived += ("reduced_precision", "reduced_information", "factor", "weights")
    emptied = learnt.state._replace(
        **{name: jnp.full_like(getattr(learnt.state, name), 7) for name in derived}
    )
    rebuilt = jax.jit(eliminate)(emptied, jnp.asarray(ARM_CAMPAIGN))
    assert_same_state(learnt.state, rebuilt, rtol=1e-9, atol=1e-9)


def test_sites_may_come_in_any_order_and_any_cut(learnt: Learnt) -> None:
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *learnt.batches)
    sites = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *learnt.sites)
    order = np.random.default_rng(3).permutation(len(rows.arm))
    state = empty_state()
    for part in order.reshape(-1, BATCH):
        state = absorb_jit(state, *jax.tree.map(lambda leaf, part=part: leaf[part], (rows, sites)))
    assert_same_state(learnt.state, state, rtol=1e-9, atol=1e-9)


def test_order_inside_a_batch_does_not_matter(learnt: Learnt) -> None:
    rows = a_batch(np.random.default_rng(5))
    order = np.random.default_rng(6).permutation(BATCH)
    straight, _ = update_jit(learnt.state, rows)
    permuted, _ = update_jit(learnt.state, jax.tree.map(lambda leaf: leaf[order], rows))
    assert_same_state(straight, permuted, rtol=1e-11, atol=1e-11)


def test_padding_alone_changes_nothing_at_all(learnt: Learnt) -> None:
    rows = a_batch(np.random.default_rng(5), n_padding=BATCH)
    after, info = update_jit(learnt.state, rows)
    assert_same_state(learnt.state, after, rtol=0, atol=0)
    assert int(info.passes) == 1


@pytest.mark.parametrize(("arm", "campaign"), [(0, 2), (1, 4), (N_ARMS - 1, 4), (N_ARMS, N_CAMPAIGNS)])
def test_padding_beside_rows_changes_nothing_whatever_it_holds(
    learnt: Learnt, arm: int, campaign: int
) -> None:
    # Arm 1 has rows in this batch and is of campaign 1: padding that says otherwise must not move it there.
    rows = a_batch(np.random.default_rng(5), n_padding=8)
    padding = rows.impressions == 0
    assert 1 in np.asarray(rows.arm)[~np.asarray(padding)]
    other = rows._replace(
        features=jnp.where(padding[:, None], 3.0, rows.features),
        arm=jnp.where(padding, arm, rows.arm),
        campaign=jnp.where(padding, campaign, rows.campaign),
    )
    assert_same_state(
        update_jit(learnt.state, rows)[0], update_jit(learnt.state, other)[0], rtol=1e-11, atol=1e-11
    )


def test_growth_changes_nothing(learnt: Learnt) -> None:
    n_arms, n_campaigns = N_ARMS + 7, N_CAMPAIGNS + 2
    grown = jax.jit(grow, static_argnums=(1, 2))(learnt.state, n_arms, n_campaigns)
    blank = initial_state_jit(a_prior(), n_arms, n_campaigns)
    arrays = zip(*(named_arrays(state).items() for state in (learnt.state, grown, blank)), strict=True)
    for (name, before), (_, after), (_, prior) in arrays:
        kept, new = np.split(np.atleast_1d(after), [np.atleast_1d(before).shape[0]])
        np.testing.assert_array_equal(kept, np.atleast_1d(before), err_msg=name)
        np.testing.assert_allclose(new, np.atleast_1d(prior)[len(kept) :], rtol=1e-15, err_msg=name)
    assert (grown.arm_cross.shape, grown.campaign_cross.shape) == ((n_arms, DIM), (n_campaigns, DIM))


@pytest.mark.parametrize("seed", range(3))
def test_sites_found_among_rows_are_those_found_among_weights(
    learnt: Learnt, dense: Dense, seed: int
) -> None:
    rows = a_batch(np.random.default_rng(20 + seed))
    matrix = design(rows, N_ARMS, N_CAMPAIGNS)
    impressions, clicks = np.asarray(rows.impressions), np.asarray(rows.clicks)
    expected, weight, information = learn_in_weight_space(
        dense, matrix, impressions, clicks, tolerance=0.02, passes=8
    )
    before = predict_jit(learnt.state, rows.features, rows.arm, rows.campaign)
    sites, after, _ = find_sites_jit(before, rows.impressions, rows.clicks)
    np.testing.assert_allclose(sites.weight, weight, **EXACT)
    np.testing.assert_allclose(sites.information, information, **EXACT)
    mean, covariance = logits(expected, matrix)
    used = impressions > 0
    np.testing.assert_allclose(after.mean[used], mean[used], **EXACT)
    np.testing.assert_allclose(after.covariance[np.ix_(used, used)], covariance[np.ix_(used, used)], **EXACT)
    state, _ = update_jit(learnt.state, rows)
    np.testing.assert_allclose(state.weights, expected.mean[:DIM], **EXACT)


def test_conditioning_the_logits_is_absorbing_the_sites(learnt: Learnt) -> None:
    rows = a_batch(np.random.default_rng(31))
    before = predict_jit(learnt.state, rows.features, rows.arm, rows.campaign)
    sites, _, _ = find_sites_jit(before, rows.impressions, rows.clicks)
    conditioned = condition_jit(before, sites)
    absorbed = predict_jit(absorb_jit(learnt.state, rows, sites), rows.features, rows.arm, rows.campaign)
    used = np.asarray(rows.impressions) > 0
    np.testing.assert_allclose(conditioned.mean[used], absorbed.mean[used], **EXACT)
    np.testing.assert_allclose(
        conditioned.covariance[np.ix_(used, used)], absorbed.covariance[np.ix_(used, used)], **EXACT
    )


def test_search_says_how_it_went() -> None:
    narrow = Gaussian(np.full(BATCH, -3.9), 0.05 * np.eye(BATCH))
    seen = np.full(BATCH, 50.0)
    _, _, info = find_sites_jit(narrow, seen, np.ones(BATCH))
    assert 1 <= int(info.passes) <= 8
    assert float(info.largest_step) < 0.02


def test_search_counts_the_impressions_whose_steps_were_cut() -> None:
    # Where a rate of one in a thousand was expected, rows of nothing but clicks ask for a long step.
    wide = Gaussian(np.full(BATCH, -7.0), 4.0 * np.eye(BATCH))
    surprising, used = 5, 20
    seen = np.where(np.arange(BATCH) < used, 50.0, 0.0)
    clicks = np.where(np.arange(BATCH) < surprising, seen, 0.0)
    _, _, info = find_sites_jit(wide, seen, clicks)
    assert int(info.clipped_impressions) == 50 * surprising
    _, _, info = find_sites_jit(wide, seen, np.zeros(BATCH))
    assert int(info.clipped_impressions) == 0

"""The engine as another policy on a log of its own: with other settings, or with another encoder.

Its posterior is a refit on the first decisions alone, so that it does not know the outcomes that judge it.
Who could be shown, what the context meant, H and the point set are those that each decision was logged with;
so with the posterior and the settings of the log the probabilities are the logged ones.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from bandit.errors import LogError
from bandit.features.content_pca import random_components, shipped_components
from bandit.features.content_tables import ContentTables
from bandit.features.context import context_vectors
from bandit.features.design import weight_prior
from bandit.jax_runtime import double_precision
from bandit.learning.aggregation import BinomialCount, aggregate, room_to_fit
from bandit.learning.refit import fit_counts
from bandit.model.catalog import CampaignEntry
from bandit.model.model import Model
from bandit.padding import CANDIDATES, padded_size
from bandit.policy.kernels import maps_of, slots_of
from bandit.policy.predictive import LogitMap, SlotMap
from bandit.policy.propensity import Limits
from bandit.policy.quasi_random import normal_points
from bandit.policy.randomness import Uniforms
from bandit.policy.thompson import KAPPA, NOISE, OPTIMISM, Exploration, choose
from bandit.posterior import Gaussian, State
from bandit.types import TEXT_FIELDS
from encoders import Encoder, encode_fields
from storage.maintenance.exporter import LoggedDecision

AT_ONCE = 256  # requests; 256 × 16 candidates × 256 points of 4 bytes are 4 MB


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the engine is to explore.

    Attributes:
        kappa: κ of the lookahead; 0 is greedy.
        optimism: z, lookahead standard deviations above the mean.
        noise: ρ, the part of the lookahead that is drawn at random.
        uniform_share: ε; None for the campaign's.

    Raises:
        LogError: a number is out of its range.
    """

    kappa: float = KAPPA
    optimism: float = OPTIMISM
    noise: float = NOISE
    uniform_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("kappa", "optimism", "noise"):
            if not 0 <= getattr(self, name) < np.inf:
                raise LogError(f"expected {name} to be a number of at least 0, got {getattr(self, name)}")
        if self.uniform_share is not None and not 0 <= self.uniform_share <= 1:
            raise LogError(f"expected uniform_share to be 0 to 1, got {self.uniform_share}")


class _Requests(NamedTuple):
    """Logged requests whose candidates have one padded number.

    Attributes:
        context: as vectors.
        arm: the candidates' places among the campaign's creatives; 0 for padding.
        eligible: False for padding, and for what stood above in a list.
        horizon: impressions of one candidate that remained; infinite for none.
        point_set: of each decision.
    """

    context: Float[Any, "requests slots"]
    arm: Int[Any, "requests candidates"]
    eligible: Bool[Any, "requests candidates"]
    horizon: Float[Any, "requests"]
    point_set: Int[Any, "requests"]


def engine_probabilities(
    model: Model,
    decisions: Sequence[LoggedDecision],
    n_past: int,
    settings: EngineSettings,
    encoder: Encoder | None = None,
) -> Float[np.ndarray, "rows actions"]:
    """Return what the engine would show at every decision after the first ones.

    Args:
        model: the database's model.
        decisions: settled ones of one campaign in the order of their times.
        n_past: how many the posterior is fitted to; the others are answered.
        settings: how it explores. Floors, caps and control share are those that the campaign has now.
        encoder: makes the contents; None for the database's own.

    Returns:
        Probabilities of the creatives that occur in the log, in the order of their names; rows sum to 1.
    """
    entry = model.catalog.campaigns[decisions[0].campaign]
    place = {creative.external_id: i for i, creative in enumerate(entry.creatives)}
    tables = _tables(model, entry, decisions[0].candidates, encoder)
    posterior = _fitted(model, decisions[:n_past], place, tables)
    future = decisions[n_past:]
    target = np.zeros((len(future), len(place)))
    with double_precision():
        answer = _answerer(posterior, tables, entry, settings)
        for size, rows in _by_size(future).items():
            requests = _requests([future[row] for row in rows], place, size, model)
            # The ineligible have exactly 0, so padding adds nothing.
            np.add.at(target, (np.array(rows)[:, None], requests.arm), answer(requests, size))
    return target[:, [place[name] for name in sorted({name for one in decisions for name in one.candidates})]]


def _tables(
    model: Model, entry: CampaignEntry, first: Sequence[str], encoder: Encoder | None
) -> ContentTables:
    """Return contents of a campaign's creatives, and their mean at its first decision.

    Components of another encoder are those that ship for it, or random ones, as in a new database.
    """
    if encoder is None:
        arms = [model.catalog.arm[creative.creative_id] for creative in entry.creatives]
        content, mean = model.catalog.content[arms], model.catalog.mean_content[entry.index]
    else:
        texts = [
            {name: creative.content[name] for name in TEXT_FIELDS if creative.content.get(name)}
            for creative in entry.creatives
        ]
        shipped = shipped_components(encoder)
        components = shipped or random_components(encoder.dim, model.record.seed)
        content = components.project(encode_fields(encoder, texts))
        mean = content[[creative.external_id in first for creative in entry.creatives]].mean(axis=0)
    with double_precision():
        return jax.block_until_ready(
            ContentTables(jnp.asarray(content, float), jnp.asarray(mean[None], float))
        )


def _fitted(
    model: Model, past: Sequence[LoggedDecision], place: Mapping[str, int], tables: ContentTables
) -> State:
    """Return the posterior of these decisions alone; scales that are not learnt are the initial ones."""
    counted = [
        BinomialCount(place[one.creative], one.context, one.slots_version, 1.0, float(one.click or 0))
        for one in past
    ]
    arm_campaign = np.zeros(len(place), np.int64)
    rows = aggregate(counted, model.schema, {i: i for i in range(len(place))}, arm_campaign, room_to_fit)
    with double_precision():
        prior = jax.block_until_ready(weight_prior(model.settings.scales))
    return fit_counts(prior, tables, rows, arm_campaign, 1, model.settings.learns_scales)[0]


def _answerer(
    posterior: State, tables: ContentTables, entry: CampaignEntry, settings: EngineSettings
) -> Callable[[_Requests, int], Float[np.ndarray, "requests candidates"]]:
    """Return what answers requests of one padded number of candidates; call it in double precision."""
    record = entry.record
    arms, zero = np.arange(len(entry.creatives)), np.zeros(1, np.int64)
    slots = slots_of(posterior)
    maps = maps_of(posterior, slots, tables, arms[None], zero)
    known: LogitMap = jax.tree.map(lambda leaf: leaf[0], maps)
    limits = Limits(
        jnp.array([creative.floor for creative in entry.creatives]),
        jnp.array([creative.cap for creative in entry.creatives]),
    )
    share = record.uniform_share if settings.uniform_share is None else settings.uniform_share
    shares = jnp.array([share, record.control_share])
    explores = jnp.array([settings.kappa, settings.optimism, settings.noise])

    def answer(requests: _Requests, size: int) -> Float[np.ndarray, "requests candidates"]:
        points = jnp.asarray(normal_points(size))
        return np.asarray(_propensities(slots, known, limits, shares, explores, requests, points))

    return answer


@jax.jit
def _propensities(
    slots: SlotMap,
    known: LogitMap,
    limits: Limits,
    shares: Array,
    explores: Array,
    requests: _Requests,
    points: Array,
) -> Float[Array, "requests candidates"]:
    kappa, optimism, noise = explores

    def one(request: _Requests) -> Array:
        every = known.at(slots, request.context)
        logits = Gaussian(every.mean[request.arm], every.covariance[jnp.ix_(request.arm, request.arm)])
        own = jax.tree.map(lambda leaf: leaf[request.arm], limits)
        # H is of one candidate.
        exploration = Exploration(request.horizon, jnp.zeros(()), kappa, shares[0], jnp.ones(()), shares[1])
        uniforms = Uniforms(request.point_set, *jnp.zeros(len(Uniforms._fields) - 1))
        chosen = choose(
            *(logits, exploration, request.eligible, points, uniforms, own), optimism=optimism, noise=noise
        )
        return chosen.propensities

    return jax.lax.map(one, requests, batch_size=AT_ONCE)


def _by_size(decisions: Sequence[LoggedDecision]) -> dict[int, list[int]]:
    """Return the rows of each padded number of candidates."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for row, one in enumerate(decisions):
        found[padded_size(len(one.candidates), CANDIDATES)].append(row)
    return found


def _requests(
    decisions: Sequence[LoggedDecision], place: Mapping[str, int], size: int, model: Model
) -> _Requests:
    arm = np.zeros((len(decisions), size), np.int64)
    eligible = np.zeros((len(decisions), size), bool)
    for row, one in enumerate(decisions):
        arm[row, : len(one.candidates)] = [place[name] for name in one.candidates]
        eligible[row, : len(one.candidates)] = np.array(one.propensities) > 0
    versions = [one.slots_version for one in decisions]
    return _Requests(
        context_vectors([one.context for one in decisions], model.schema, versions),
        arm,
        eligible,
        np.array([np.inf if one.horizon is None else one.horizon for one in decisions]),
        np.array([one.point_set for one in decisions]),
    )

"""The design row φ of one request and creative, and the prior over its weights.

    φ = [1 · context 16 · content 64 · campaign's mean content 64 · context × first 4 contents 64]

Contents are un-whitened principal components of unit-norm text embeddings: a Gaussian prior of one scale on
them
is a ridge penalty in the embedding's own metric. The campaign's mean beside the content (Mundlak's device)
lets
differences inside a campaign and between campaigns have different effects.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from bandit.posterior import Prior

N_CONTEXT = 16
N_CONTENT = 64
N_INTERACTING = 4
DIM = 1 + N_CONTEXT + 2 * N_CONTENT + N_CONTEXT * N_INTERACTING
GROUPS = ("intercept", "context", "content", "campaign_mean", "interaction")  # of φ, in its order
DIM_WITHOUT_CONTEXT = 1 + 2 * N_CONTENT


class PriorScales(NamedTuple):
    """Prior standard deviations in logits, and the base rate that the intercept is centred on."""

    intercept: float = 0.7
    context: float = 0.3
    content: float = 0.22
    campaign_mean: float = 0.22
    interaction: float = 0.3
    campaign: float = 0.6
    arm: float = 0.25
    base_rate: float = 0.02


def design_row(context: Array, content: Array, campaign_mean: Array) -> Array:
    """Return φ of one request and creative.

    Args:
        context: context vector, [16], or [0] for a model that never has one.
        content: the creative's components, [64].
        campaign_mean: mean components of the campaign's creatives, [64].

    Returns:
        [209], or [129] without context.
    """
    interactions = (context[:, None] * content[None, :N_INTERACTING]).ravel()
    return jnp.concatenate([jnp.ones(1, content.dtype), context, content, campaign_mean, interactions])


def group_mask(*names: str) -> Float[np.ndarray, "dim"]:
    """Return 1.0 where φ belongs to one of the groups, else 0.0.

    Example:
        >>> int(group_mask("context", "interaction").sum())
        80
    """
    return np.repeat([float(group in names) for group in GROUPS], _sizes(True, N_CONTENT))


def scale_groups(*, with_context: bool = True, n_content: int = N_CONTENT) -> Float[np.ndarray, "groups dim"]:
    """Return which weights share a scale that is learnt: 1.0 where φ belongs to the group, else 0.0.

    Args:
        with_context: whether φ has context and interactions.
        n_content: number of components.

    Returns:
        A row for each of `GROUPS` but the intercept, whose scale stays.
    """
    return np.repeat(np.eye(len(GROUPS))[1:], _sizes(with_context, n_content), axis=1)


def weight_prior(scales: PriorScales, *, with_context: bool = True, n_content: int = N_CONTENT) -> Prior:
    """Return the prior over the weights of φ, float64.

    Args:
        scales: standard deviations per group and the base rate.
        with_context: whether φ has context and interactions.
        n_content: number of components.
    """
    sizes = _sizes(with_context, n_content)
    groups = (scales.intercept, scales.context, scales.content, scales.campaign_mean, scales.interaction)
    scale = np.repeat(np.asarray(groups), sizes)
    mean = np.zeros_like(scale)
    mean[0] = np.log(scales.base_rate / (1 - scales.base_rate))
    with_dtype = [jnp.asarray(values, jnp.float64) for values in (mean, scale, scales.campaign, scales.arm)]
    return Prior(*with_dtype)


def _sizes(with_context: bool, n_content: int) -> tuple[int, ...]:
    """Return how many weights each group has."""
    context = N_CONTEXT if with_context else 0
    return (1, context, n_content, n_content, context * N_INTERACTING)

"""Contents of all arms and campaigns on the device, and the design rows of a request made from them."""

from typing import NamedTuple

import jax
from jax import Array
from jaxtyping import Float

from bandit.features.design import design_row


class ContentTables(NamedTuple):
    """Contents on the device, padded to the posterior's capacity.

    Attributes:
        content: content features of each arm.
        mean_content: mean content of each campaign.
    """

    content: Float[Array, "arms content"]
    mean_content: Float[Array, "campaigns content"]


def design(tables: ContentTables, context: Array, arm: Array, campaign: Array) -> Array:
    """Return φ of one request's candidates, [candidates, 209]."""
    mean = tables.mean_content[campaign]
    return jax.vmap(lambda index: design_row(context, tables.content[index], mean))(arm)

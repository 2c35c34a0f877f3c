"""A catalog as arrays of the posterior's capacity: contents on the device, and each arm's campaign."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from bandit.features.content_tables import ContentTables
from bandit.features.design import N_CONTENT
from bandit.model.catalog import Catalog
from bandit.padding import room_for


def capacity_for(catalog: Catalog) -> tuple[int, int]:
    """Return padded numbers of arms and campaigns; they only grow."""
    return room_for(len(catalog.arm), 256), room_for(len(catalog.mean_content), 16)


def padded_campaigns(catalog: Catalog, n_arms: int) -> Int[np.ndarray, "arms"]:
    """Return the campaign's index of every arm, padded to a capacity."""
    return np.pad(catalog.arm_campaign, (0, n_arms - len(catalog.arm_campaign)))


class DeviceTables:
    """Keeps the contents of the catalog that was asked for last."""

    def __init__(self) -> None:
        self._known: tuple[Catalog, tuple[int, int], ContentTables] | None = None

    def of(self, catalog: Catalog, n_arms: int, n_campaigns: int) -> ContentTables:
        """Return contents on the device, padded to a capacity; call it in double precision."""
        known = self._known
        if known is not None and known[0] is catalog and known[1] == (n_arms, n_campaigns):
            return known[2]
        content = np.zeros((n_arms, N_CONTENT))
        content[: len(catalog.content)] = catalog.content
        mean_content = np.zeros((n_campaigns, N_CONTENT))
        mean_content[: len(catalog.mean_content)] = catalog.mean_content
        tables = ContentTables(jnp.asarray(content), jnp.asarray(mean_content))
        self._known = (catalog, (n_arms, n_campaigns), tables)
        return tables

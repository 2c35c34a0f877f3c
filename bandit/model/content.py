"""What the texts of a model's creatives are to the posterior: components of the vectors of one encoder."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bandit.features.content_pca import (
    TEXTS_TO_FIT,
    Components,
    components_from_bytes,
    components_to_bytes,
    fit_components,
    random_components,
    shipped_components,
)
from bandit.model.catalog import Catalog, build_catalog
from bandit.model.embeddings import LazyEncoder, SqlVectors
from bandit.model.settings import settings_of
from bandit.types import TEXT_FIELDS
from encoders import Encoder, encode_cached, encode_fields, fill_cache
from storage import CreativeRecord, ModelRecord, NewFeatures, Store

logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What a number is read with off a creative's text: along · its vector + constant.

    Attributes:
        encoder: Makes the vector.
        along: The direction that is read off.
        constant: Is added.
    """

    encoder: Encoder
    along: Float[np.ndarray, "embedding"]
    constant: float


class Features(NamedTuple):
    """What all creatives would be by another encoder, or other components: not in use yet.

    Attributes:
        encoder: The encoder.
        components: The components.
        origin: Where they come from: "shipped", "fitted" or "random".
        catalog: All campaigns and creatives by them, with the mean contents of today.
    """

    encoder: LazyEncoder
    components: Components
    origin: str
    catalog: Catalog


class Contents:
    """The contents of one model's creatives. Not thread-safe but for `fill`; the model locks.

    Args:
        store: The database.
        clock: Gives the time, aware.
        record: The model.
        encoder: See `LazyEncoder`.
        reread: Has the model read anew, which calls `take`.

    Attributes:
        step: The learning step from which on encoder, components and mean contents are those here.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        record: ModelRecord,
        encoder: Encoder | str | Path | None,
        reread: Callable[[], None],
    ) -> None:
        self._store = store
        self._reread = reread
        self._model_id, self._seed = record.model_id, record.seed
        self._encoder = LazyEncoder(encoder)
        self._components: Components | None = None
        self._vectors = SqlVectors(store, clock)
        self._of_creatives: dict[int, np.ndarray] = {}
        self.step = 0

    @property
    def are_known(self) -> bool:
        """Whether the model had components when it was last read."""
        return self._components is not None

    def take(self, stored: ModelRecord) -> None:
        """Take the encoder and components as they are stored; contents follow when they are asked for."""
        step = settings_of(stored.settings).features_step
        if stored.components is None or (self.are_known and step == self.step):
            return
        self._components = components_from_bytes(stored.components)
        self.step = step
        self._of_creatives.clear()
        if self._encoder.expect(stored.encoder_fingerprint, len(self._components.centre)):
            logger.warning(
                "another process has swapped the encoder of %s for %s; what is stored is served by it, "
                "but new texts need a process that is opened with it",
                *(self._store.display_url, stored.encoder_fingerprint),
            )

    def of(self, creatives: Sequence[CreativeRecord]) -> Mapping[int, np.ndarray]:
        """Return the contents of creatives by their ids; the texts of new ones are encoded."""
        new = [creative for creative in creatives if creative.creative_id not in self._of_creatives]
        if new:
            components = self.components_in_use()
            features = components.project(self._embed([texts_of(creative) for creative in new]))
            self._of_creatives.update(zip((creative.creative_id for creative in new), features, strict=True))
        return self._of_creatives

    def prepare(self, texts: Sequence[Mapping[str, str]]) -> str:
        """Encode texts into the database before creatives refer to them; return the encoder's fingerprint."""
        self.components_in_use()
        self._embed(texts)
        return self._encoder.fingerprint

    def fill(self, encoder: LazyEncoder, creatives: Sequence[CreativeRecord]) -> None:
        """Encode all texts of creatives into the database by another encoder."""
        fill_cache(encoder, _distinct_texts(creatives), self._vectors)

    def better(self, catalog: Catalog) -> Features | None:
        """Return the features by components of the creatives' own texts; None while these are too few."""
        fitted = self._fitted_components(self._encoder, _creatives(catalog))
        return None if fitted is None else self._features(self._encoder, fitted, "fitted", catalog)

    def by(self, encoder: LazyEncoder, catalog: Catalog) -> Features:
        """Return the features of a catalog by another encoder; see `fill`."""
        return self._features(encoder, *self._new_components(encoder, _creatives(catalog)), catalog)

    def use(self, encoder: LazyEncoder) -> None:
        """Encode by another encoder from now on; what is stored must be taken next."""
        self._encoder = encoder

    def load_encoder(self) -> Encoder:
        """Return the encoder itself; raises as `LazyEncoder.load`."""
        return self._encoder.load()

    def reading(self, direction: Float[np.ndarray, "content"]) -> Reading:
        """Return what a number d · content is read with off a text, for a direction d; see `load_encoder`."""
        components = self.components_in_use()
        along = components.basis.astype(float) @ direction
        return Reading(self._encoder.load(), along, -float(components.centre @ along))

    def components_in_use(self) -> Components:
        """Return the components; a new model gets those of its encoder."""
        if self._components is None:
            self._reread()
        if self._components is None:
            components, origin = self._new_components(self._encoder, [])
            self._store.models.set_encoder(
                self._model_id,
                self._encoder.fingerprint,
                components_to_bytes(components),
                settings={"components": origin},
            )
            self._reread()  # of two processes the first gave them
            return self._components or components
        return self._components

    def _embed(self, texts: Sequence[Mapping[str, str]]) -> Float[np.ndarray, "texts dim"]:
        return encode_fields(self._encoder, texts, cache=self._vectors)

    def _features(
        self, encoder: LazyEncoder, components: Components, origin: str, catalog: Catalog
    ) -> Features:
        creatives = _creatives(catalog)
        vectors = encode_fields(encoder, list(map(texts_of, creatives)), cache=self._vectors)
        contents = zip((c.creative_id for c in creatives), components.project(vectors), strict=True)
        # Without their stored means campaigns get those of the creatives that they have now.
        campaigns = [replace(entry.record, mean_content=None) for entry in catalog.campaigns.values()]
        return Features(
            encoder, components, origin, build_catalog(campaigns, creatives, dict(contents), catalog)
        )

    def _new_components(
        self, encoder: LazyEncoder, creatives: Sequence[CreativeRecord]
    ) -> tuple[Components, str]:
        """Return the components that ship for an encoder, fitted ones, or while texts are few random ones."""
        shipped = shipped_components(encoder.load())
        if shipped is not None:
            return shipped, "shipped"
        fitted = self._fitted_components(encoder, creatives)
        if fitted is not None:
            return fitted, "fitted"
        return random_components(encoder.dim, self._seed), "random"

    def _fitted_components(
        self, encoder: LazyEncoder, creatives: Sequence[CreativeRecord]
    ) -> Components | None:
        texts = _distinct_texts(creatives)
        if len(texts) < TEXTS_TO_FIT:
            return None
        return fit_components(encode_cached(encoder, texts, self._vectors))


def new_features(features: Features, step: int) -> NewFeatures:
    """Return features as the learning step that brings them stores them."""
    catalog = features.catalog
    return NewFeatures(
        encoder_fingerprint=features.encoder.fingerprint,
        components=components_to_bytes(features.components),
        settings={"components": features.origin, "features_step": step},
        mean_contents={
            entry.record.campaign_id: catalog.mean_content[entry.index].astype("<f4").tobytes()
            for entry in catalog.campaigns.values()
            if entry.creatives
        },
        creative_ids=frozenset(catalog.names),
    )


def texts_of(creative: CreativeRecord) -> dict[str, str]:
    """Return a creative's texts by field; those that are empty are left out."""
    return {name: creative.content[name] for name in TEXT_FIELDS if creative.content.get(name)}


def _creatives(catalog: Catalog) -> list[CreativeRecord]:
    return [creative for entry in catalog.campaigns.values() for creative in entry.creatives]


def _distinct_texts(creatives: Sequence[CreativeRecord]) -> list[str]:
    return sorted({text for creative in creatives for text in texts_of(creative).values()})

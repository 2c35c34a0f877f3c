"""One model in memory: its campaigns, contents and context schema, as they stand in SQL."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.components import (
    TEXTS_TO_FIT,
    Components,
    components_from_bytes,
    components_to_bytes,
    fit_components,
    random_components,
    shipped_components,
)
from bandit.context import check_context, distinct_contexts, give_slots
from bandit.embedding import LazyEncoder, SqlVectors
from bandit.errors import ContextError
from bandit.features import N_CONTENT, N_CONTEXT, PriorScales
from bandit.privacy import check_policy, new_secret
from bandit.records import TEXT_FIELDS
from bandit.roster import CampaignEntry, Roster, build_roster
from bandit.selection import Tables, room_for
from encoders import Encoder, encode_cached, encode_fields, fill_cache
from storage import (
    ContextCountRecord,
    ContextKindError,
    ContextRecord,
    CreativeRecord,
    LearnRows,
    NewFeatures,
    Store,
    UnknownCampaignError,
)
from storage.records import ContextKind

logger = logging.getLogger(__name__)


def initial_settings() -> dict[str, object]:
    """Return the settings of a new model."""
    return {"scales": PriorScales()._asdict()}


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
        roster: All campaigns and creatives by them, with the mean contents of today.
    """

    encoder: LazyEncoder
    components: Components
    origin: str
    roster: Roster


class Model:
    """One model's campaigns, creatives, contents and context schema; reread from SQL, never its own truth.

    Args:
        store: The database.
        clock: Gives the time, aware.
        seed: Seed of a new model; an old one keeps its own.
        encoder: See `LazyEncoder`.

    Attributes:
        record: The stored settings.
        scales: Prior scales.
        roster: Campaigns and creatives; replaced as a whole.
        schema: The context schema; replaced as a whole.
        activated: Decisions that each campaign has had, by campaign id.
        features_step: The learning step from which on encoder, components and mean contents are those here.
    """

    def __init__(
        self, store: Store, clock: Callable[[], datetime], seed: int, encoder: Encoder | str | Path | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.RLock()
        self.record = store.models.get_or_create(
            seed=seed, encoder_fingerprint=None, settings=initial_settings()
        )
        self.scales = PriorScales(**self.record.settings["scales"])
        self._encoder = LazyEncoder(encoder)
        self._components: Components | None = None
        self.features_step = 0
        self._vectors = SqlVectors(store, clock)
        self._contents: dict[int, np.ndarray] = {}
        self._tables: tuple[Roster, tuple[int, int], Tables] | None = None
        self._count_lock = threading.Lock()
        self.roster = build_roster([], [], {})
        self.schema: ContextRecord = store.models.context(self.record.model_id)
        self.activated = store.learning.impressions(self.record.model_id)
        while not self.reload():
            self.reread_features()

    def reload(self) -> bool:
        """Reread campaigns, creatives and the context schema.

        Returns:
            Whether it was done; not when the features are others by now, which the posterior must follow with
            them, see `reread_features`.
        """
        with self._lock:
            if self._components is None:
                self.reread_features()
            campaigns = self._store.campaigns.all(self.record.model_id)
            creatives = self._store.campaigns.all_creatives(self.record.model_id)
            # Asked last: what was read before a swap is as it was before.
            if _features_step(self._store.models.settings(self.record.model_id)) != self.features_step:
                return False
            new = [creative for creative in creatives if creative.creative_id not in self._contents]
            if new:
                features = self._components_in_use().project(
                    self._embed([texts_of(creative) for creative in new])
                )
                self._contents.update(zip((creative.creative_id for creative in new), features, strict=True))
            self.roster = build_roster(campaigns, creatives, self._contents, self.roster)
            self.schema = self._store.models.context(self.record.model_id)
            return True

    def reread_features(self) -> None:
        """Take the encoder and components as they are stored; contents follow at `reload`."""
        with self._lock:
            stored = self._store.models.get_or_create(
                seed=self.record.seed, encoder_fingerprint=None, settings=self.record.settings
            )
            self.record = stored
            step = _features_step(stored.settings)
            if stored.components is None or (self._components is not None and step == self.features_step):
                return
            self._components = components_from_bytes(stored.components)
            self.features_step = step
            self._contents.clear()
            if self._encoder.expect(stored.encoder_fingerprint, len(self._components.centre)):
                logger.warning(
                    "another process has swapped the encoder of %s for %s; what is stored is served by it, "
                    "but new texts need a process that is opened with it",
                    *(self._store.place, stored.encoder_fingerprint),
                )

    def is_refit_due(self) -> bool:
        """Whether contents or history have changed and the refit that must follow was never finished."""
        return bool(self.record.settings.get("refit_due"))

    def mark_refit(self, *, is_due: bool) -> None:
        """Note before a change that a refit must follow, or that it did: a killed process finds the note."""
        with self._lock:
            if self.is_refit_due() != is_due:
                self.change_settings(refit_due=is_due)

    def reread_settings(self) -> None:
        """Take the settings that another process may have changed."""
        with self._lock:
            self.record = replace(self.record, settings=self._store.models.settings(self.record.model_id))

    def change_settings(self, **settings: object) -> None:
        """Change stored settings; those that are not named stay as they are in SQL."""
        with self._lock:
            self.record = self._store.models.change_settings(self.record.model_id, settings)

    def change_context_policy(self, policy: Mapping[str, str]) -> None:
        """Change which context fields are hashed or dropped; see privacy.py."""
        check_policy(policy, self.schema)
        with self._lock:
            self.record = self._store.models.change_context_policy(self.record.model_id, policy, new_secret())

    @property
    def learns_scales(self) -> bool:
        """Whether the prior's scales are learnt."""
        return bool(self.record.settings.get("learn_scales", True))

    @property
    def half_life_days(self) -> float | None:
        """Days after which what the data taught counts half; None never forgets."""
        half_life: float | None = self.record.settings.get("half_life_days")
        return half_life

    @property
    def forgets_since(self) -> datetime | None:
        """When forgetting was switched on."""
        since = self.record.settings.get("forgets_since")
        return None if since is None else datetime.fromisoformat(since)

    def knows(self, rows: LearnRows) -> bool:
        """Whether all that the features of decisions depend on has been read, whichever process made them."""
        campaigns = {entry.record.campaign_id: entry.record for entry in self.roster.campaigns.values()}
        return all(
            creative_id in self.roster.arm
            and slots_version <= self.schema.version
            # A campaign that has decisions has a mean content.
            and campaigns[campaign_id].mean_content is not None
            for creative_id, campaign_id, slots_version in set(
                zip(rows.creative_ids, rows.campaign_ids, rows.slots_versions, strict=True)
            )
        )

    def recount(self) -> None:
        """Count decisions anew, with those of other processes and those activated since."""
        counted = self._store.learning.impressions(self.record.model_id)
        with self._count_lock:
            self.activated = counted

    def prepare_texts(self, texts: Sequence[Mapping[str, str]]) -> str:
        """Encode texts into the database before creatives refer to them.

        Returns:
            The fingerprint of the encoder.
        """
        with self._lock:
            self._components_in_use()
            self._embed(texts)
            return self._encoder.fingerprint

    def prepare_encoder(self, encoder: LazyEncoder) -> None:
        """Encode all texts into the database by another encoder, for `features_by`."""
        creatives = self._store.campaigns.all_creatives(self.record.model_id)
        fill_cache(encoder, _distinct_texts(creatives), self._vectors)

    def entry(self, campaign: str) -> CampaignEntry:
        """Return a campaign as it was last read.

        Raises:
            UnknownCampaignError: This model has none of this name.
        """
        if campaign not in self.roster.campaigns:
            raise UnknownCampaignError(f"campaign {campaign!r} belongs to another model of this database")
        return self.roster.campaigns[campaign]

    def fix_mean_content(self, entry: CampaignEntry, *, reload: bool = True) -> CampaignEntry:
        """Store the mean content of a campaign at its first decision; later ones use what is stored.

        Args:
            entry: The campaign.
            reload: Whether to reread at once; a caller that fixes many does it itself.

        Returns:
            The campaign as it is now.
        """
        if entry.record.mean_content is not None:
            return entry
        with self._lock:
            mean = self.roster.current_mean(entry).astype("<f4")
            self._store.campaigns.set_mean_content(entry.record.campaign_id, mean.tobytes())
            if reload:
                self.reload()
        return self.roster.campaigns[entry.record.name]

    def check_contexts(self, contexts: Sequence[Mapping[str, object]]) -> dict[str, ContextKind]:
        """Check contexts of requests.

        Returns:
            The kinds of fields never seen before, by name.

        Raises:
            ContextError: A context cannot be used.
        """
        new: dict[str, ContextKind] = {}
        for context in distinct_contexts(contexts):
            for field, kind in check_context(context, self.schema).items():
                if new.setdefault(field, kind) != kind:
                    raise ContextError(
                        f"context field {field!r}: the requests of one call have "
                        f"both a {new[field]} and a {kind}"
                    )
        return new

    def add_context_fields(self, new: Mapping[str, ContextKind]) -> None:
        """Add fields never seen before to the schema.

        Raises:
            ContextError: Another process has just added one with another kind.
        """
        with self._lock:
            try:
                self.schema = self._store.models.add_context_fields(
                    self.record.model_id, new, max_slots=N_CONTEXT
                )
            except ContextKindError as error:
                raise ContextError(str(error)) from error

    def count_activated(self, campaign_id: int) -> None:
        """Count a decision that was shown."""
        with self._count_lock:  # the other one is held while texts are encoded
            self.activated[campaign_id] = self.activated.get(campaign_id, 0) + 1

    def give_slots(self, more: Sequence[ContextCountRecord] = ()) -> None:
        """Give slots to levels that have been learnt often enough, counts beyond the stored ones included."""
        with self._lock:
            self.schema = give_slots(self._store, self.record.model_id, self.schema, more)

    def tables(self, n_arms: int, n_campaigns: int, roster: Roster | None = None) -> Tables:
        """Return contents on the device, padded to a capacity; call it in double precision."""
        roster, known = roster or self.roster, self._tables
        if known is not None and known[0] is roster and known[1] == (n_arms, n_campaigns):
            return known[2]
        content = np.zeros((n_arms, N_CONTENT))
        content[: len(roster.content)] = roster.content
        mean_content = np.zeros((n_campaigns, N_CONTENT))
        mean_content[: len(roster.mean_content)] = roster.mean_content
        tables = Tables(jnp.asarray(content), jnp.asarray(mean_content))
        self._tables = (roster, (n_arms, n_campaigns), tables)
        return tables

    def arm_campaign(self, n_arms: int) -> np.ndarray:
        """Return the campaign's index of every arm, padded to a capacity."""
        return np.pad(self.roster.arm_campaign, (0, n_arms - len(self.roster.arm_campaign)))

    def capacity(self) -> tuple[int, int]:
        """Return padded numbers of arms and campaigns; they only grow."""
        return room_for(len(self.roster.arm), 256), room_for(len(self.roster.mean_content), 16)

    def better_features(self) -> Features | None:
        """Return the features by components of the database's own texts, once there are enough of them.

        Returns:
            None where there are too few, or components ship for the encoder, or were fitted before.
        """
        if self.record.settings.get("components") != "random":
            return None
        with self._lock:
            self.reload()
            fitted = self._fitted_components(self._encoder)
            return None if fitted is None else self._features(self._encoder, fitted, "fitted")

    def features_by(self, encoder: LazyEncoder) -> Features:
        """Return the features by another encoder; see `prepare_encoder`."""
        with self._lock:
            self.reload()
            return self._features(encoder, *self._new_components(encoder))

    def adopt(self, features: Features) -> None:
        """Use features that a learning step has just stored."""
        with self._lock:
            self._encoder = features.encoder
            self.reread_features()
            self.reload()

    def _features(self, encoder: LazyEncoder, components: Components, origin: str) -> Features:
        creatives = self._creatives()
        vectors = encode_fields(encoder, list(map(texts_of, creatives)), cache=self._vectors)
        contents = zip((c.creative_id for c in creatives), components.project(vectors), strict=True)
        # Without their stored means campaigns get those of the creatives that they have now.
        campaigns = [replace(entry.record, mean_content=None) for entry in self.roster.campaigns.values()]
        roster = build_roster(campaigns, creatives, dict(contents), self.roster)
        return Features(encoder, components, origin, roster)

    def _new_components(self, encoder: LazyEncoder) -> tuple[Components, str]:
        """Return the components that ship for an encoder, fitted ones, or while texts are few random ones."""
        shipped = shipped_components(encoder.load())
        if shipped is not None:
            return shipped, "shipped"
        fitted = self._fitted_components(encoder)
        if fitted is not None:
            return fitted, "fitted"
        return random_components(encoder.dim, self.record.seed), "random"

    def _fitted_components(self, encoder: LazyEncoder) -> Components | None:
        texts = _distinct_texts(self._creatives())
        return (
            fit_components(encode_cached(encoder, texts, self._vectors))
            if len(texts) >= TEXTS_TO_FIT
            else None
        )

    def _creatives(self) -> list[CreativeRecord]:
        return [creative for entry in self.roster.campaigns.values() for creative in entry.creatives]

    def load_encoder(self) -> None:
        """Load the encoder now, for a caller that will need it.

        Raises:
            EncoderError: It cannot be loaded.
            EncoderChangedError: It is not the one that made the database's vectors.
        """
        with self._lock:
            self._encoder.load()

    def reading(self, direction: Float[np.ndarray, "content"]) -> Reading:
        """Return what a number d · content is read with off a text, for a direction d; see `load_encoder`."""
        with self._lock:
            components = self._components_in_use()
            along = components.basis.astype(float) @ direction
            return Reading(self._encoder.load(), along, -float(components.centre @ along))

    def _embed(self, texts: Sequence[Mapping[str, str]]) -> Float[np.ndarray, "texts dim"]:
        return encode_fields(self._encoder, texts, cache=self._vectors)

    def _components_in_use(self) -> Components:
        """Return the components; a new model gets those of its encoder."""
        if self._components is None:
            self.reread_features()
        if self._components is None:
            components, origin = self._new_components(self._encoder)
            self._store.models.set_encoder(
                self.record.model_id,
                self._encoder.fingerprint,
                components_to_bytes(components),
                settings={"components": origin},
            )
            self.reread_features()  # of two processes the first gave them
            return self._components or components
        return self._components


def new_features(features: Features, step: int) -> NewFeatures:
    """Return features as the learning step that brings them stores them."""
    roster = features.roster
    return NewFeatures(
        encoder_fingerprint=features.encoder.fingerprint,
        components=components_to_bytes(features.components),
        settings={"components": features.origin, "features_step": step},
        mean_contents={
            entry.record.campaign_id: roster.mean_content[entry.index].astype("<f4").tobytes()
            for entry in roster.campaigns.values()
            if entry.creatives
        },
        creative_ids=frozenset(roster.names),
    )


def texts_of(creative: CreativeRecord) -> dict[str, str]:
    """Return a creative's texts by field; those that are empty are left out."""
    return {name: creative.content[name] for name in TEXT_FIELDS if creative.content.get(name)}


def _distinct_texts(creatives: Sequence[CreativeRecord]) -> list[str]:
    return sorted({text for creative in creatives for text in texts_of(creative).values()})


def _features_step(settings: Mapping[str, Any]) -> int:
    return int(settings.get("features_step", 0))

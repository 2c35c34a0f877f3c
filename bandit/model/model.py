"""One model in memory: its campaigns, contents and context schema, as they stand in SQL."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bandit.errors import ContextError
from bandit.features.context import check_context, distinct_contexts, give_slots
from bandit.features.context_policy import check_policy, new_secret
from bandit.features.design import N_CONTEXT
from bandit.model.catalog import CampaignEntry, build_catalog
from bandit.model.content import Contents, Features, Reading
from bandit.model.device_tables import DeviceTables
from bandit.model.embeddings import LazyEncoder
from bandit.model.impression_counts import ImpressionCounts
from bandit.model.settings import ModelSettings, initial_settings, settings_of
from encoders import Encoder
from storage import (
    ContextCountRecord,
    ContextKindError,
    ContextRecord,
    LearnRows,
    Store,
    UnknownCampaignError,
)
from storage.records import ContextKind


class Model:
    """One model's campaigns, creatives, contents and context schema; reread from SQL, never its own truth.

    Args:
        store: The database.
        clock: Gives the time, aware.
        seed: Seed of a new model; an old one keeps its own.
        encoder: See `LazyEncoder`.

    Attributes:
        record: The stored row.
        catalog: Campaigns and creatives; replaced as a whole.
        schema: The context schema; replaced as a whole.
        tables: The catalog's contents on the device.
        impressions: Decisions that each campaign has had.
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
        self._contents = Contents(store, clock, self.record, encoder, self.reread_features)
        self.tables = DeviceTables()
        self.catalog = build_catalog([], [], {})
        self.schema: ContextRecord = store.models.context(self.record.model_id)
        self.impressions = ImpressionCounts(store, self.record.model_id)
        while not self.reload():
            self.reread_features()

    def reload(self) -> bool:
        """Reread campaigns, creatives and the context schema.

        Returns:
            Whether it was done; not when the features are others by now, which the posterior must follow with
            them, see `reread_features`.
        """
        with self._lock:
            if not self._contents.are_known:
                self.reread_features()
            campaigns = self._store.campaigns.all(self.record.model_id)
            creatives = self._store.campaigns.all_creatives(self.record.model_id)
            # Asked last: what was read before a swap is as it was before.
            stored = settings_of(self._store.models.settings(self.record.model_id))
            if stored.features_step != self.features_step:
                return False
            self.catalog = build_catalog(campaigns, creatives, self._contents.of(creatives), self.catalog)
            self.schema = self._store.models.context(self.record.model_id)
            return True

    def reread_features(self) -> None:
        """Take the encoder and components as they are stored; contents follow at `reload`."""
        with self._lock:
            self.record = self._store.models.get_or_create(
                seed=self.record.seed, encoder_fingerprint=None, settings=self.record.settings
            )
            self._contents.take(self.record)

    @property
    def settings(self) -> ModelSettings:
        """What the model is set to, as it was last read."""
        return settings_of(self.record.settings)

    @property
    def features_step(self) -> int:
        """The learning step from which on encoder, components and mean contents are those here."""
        return self._contents.step

    def mark_refit(self, *, is_due: bool) -> None:
        """Note before a change that a refit must follow, or that it did: a killed process finds the note."""
        with self._lock:
            if self.settings.is_refit_due != is_due:
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

    def knows(self, rows: LearnRows) -> bool:
        """Whether all that the features of decisions depend on has been read, whichever process made them."""
        campaigns = {entry.record.campaign_id: entry.record for entry in self.catalog.campaigns.values()}
        return all(
            creative_id in self.catalog.arm
            and slots_version <= self.schema.version
            # A campaign that has decisions has a mean content.
            and campaigns[campaign_id].mean_content is not None
            for creative_id, campaign_id, slots_version in set(
                zip(rows.creative_ids, rows.campaign_ids, rows.slots_versions, strict=True)
            )
        )

    def prepare_texts(self, texts: Sequence[Mapping[str, str]]) -> str:
        """Encode texts into the database before creatives refer to them.

        Returns:
            The fingerprint of the encoder.
        """
        with self._lock:
            return self._contents.prepare(texts)

    def prepare_encoder(self, encoder: LazyEncoder) -> None:
        """Encode all texts into the database by another encoder, for `features_by`."""
        creatives = self._store.campaigns.all_creatives(self.record.model_id)
        self._contents.fill(encoder, creatives)

    def entry(self, campaign: str) -> CampaignEntry:
        """Return a campaign as it was last read.

        Raises:
            UnknownCampaignError: This model has none of this name.
        """
        if campaign not in self.catalog.campaigns:
            raise UnknownCampaignError(f"campaign {campaign!r} belongs to another model of this database")
        return self.catalog.campaigns[campaign]

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
            mean = self.catalog.current_mean(entry).astype("<f4")
            self._store.campaigns.set_mean_content(entry.record.campaign_id, mean.tobytes())
            if reload:
                self.reload()
        return self.catalog.campaigns[entry.record.name]

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

    def give_slots(self, more: Sequence[ContextCountRecord] = ()) -> None:
        """Give slots to levels that have been learnt often enough, counts beyond the stored ones included."""
        with self._lock:
            self.schema = give_slots(self._store, self.record.model_id, self.schema, more)

    def better_features(self) -> Features | None:
        """Return the features by components of the database's own texts, once there are enough of them.

        Returns:
            None where there are too few, or components ship for the encoder, or were fitted before.
        """
        if self.settings.components != "random":
            return None
        with self._lock:
            self.reload()
            return self._contents.better(self.catalog)

    def features_by(self, encoder: LazyEncoder) -> Features:
        """Return the features by another encoder; see `prepare_encoder`."""
        with self._lock:
            self.reload()
            return self._contents.by(encoder, self.catalog)

    def adopt(self, features: Features) -> None:
        """Use features that a learning step has just stored."""
        with self._lock:
            self._contents.use(features.encoder)
            self.reread_features()
            self.reload()

    def load_encoder(self) -> None:
        """Load the encoder now, for a caller that will need it.

        Raises:
            EncoderError: It cannot be loaded.
            EncoderChangedError: It is not the one that made the database's vectors.
        """
        with self._lock:
            self._contents.load_encoder()

    def reading(self, direction: Float[np.ndarray, "content"]) -> Reading:
        """Return what a number d · content is read with off a text, for a direction d; see `load_encoder`."""
        with self._lock:
            return self._contents.reading(direction)

"""One model in memory: its campaigns, contents and context schema, as they stand in SQL."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.components import (
    Components,
    components_from_bytes,
    components_to_bytes,
    fit_components,
    random_components,
    shipped_components,
)
from bandit.context import check_context, distinct_contexts, give_slots
from bandit.errors import ContextError, EncoderChangedError
from bandit.features import N_CONTENT, N_CONTEXT, PriorScales
from bandit.privacy import check_policy, new_secret
from bandit.records import TEXT_FIELDS
from bandit.roster import CampaignEntry, Roster, build_roster
from bandit.selection import Tables, room_for
from encoders import Encoder, TextEncoder, encode_fields
from storage import (
    ContextCountRecord,
    ContextKindError,
    ContextRecord,
    CreativeRecord,
    LearnRows,
    Store,
    UnknownCampaignError,
)
from storage.records import ContextKind

TEXTS_TO_FIT = 256  # distinct texts from which components of an unknown encoder are fitted


def initial_settings() -> dict[str, object]:
    """Return the settings of a new model."""
    return {"scales": PriorScales()._asdict()}


class SqlVectors:
    """The vectors kept in the database, as the encoder's cache."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def get(self, hashes: Sequence[str], fingerprint: str) -> Mapping[str, np.ndarray]:
        """Return the vectors that are there, by hash."""
        return self._store.embeddings.get(hashes, fingerprint)

    def add(self, fingerprint: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors, by hash."""
        self._store.embeddings.add(fingerprint, vectors, created_at=self._clock())


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


class LazyEncoder:
    """The model's encoder, loaded when a text comes that the database has no vector of.

    Args:
        encoder: An encoder, a checkpoint's folder or hub id, or None for the default one.
        fingerprint: Of the encoder that made the database's vectors; None before the first.
        dim: Its width, if known.
    """

    def __init__(
        self, encoder: Encoder | str | Path | None, fingerprint: str | None, dim: int | None
    ) -> None:
        self._given = encoder
        self._fingerprint = fingerprint
        self._dim = dim
        self._loaded: Encoder | None = None

    def load(self) -> Encoder:
        """Return the encoder itself.

        Raises:
            MissingEncoderError: There is none; says how to get it.
            EncoderChangedError: It is not the one that made the database's vectors.
        """
        if self._loaded is None:
            given = self._given
            loaded = TextEncoder(given) if given is None or isinstance(given, str | Path) else given
            if self._fingerprint is not None and loaded.fingerprint != self._fingerprint:
                raise EncoderChangedError(_changed(self._fingerprint, loaded))
            self._loaded, self._fingerprint, self._dim = loaded, loaded.fingerprint, loaded.dim
        return self._loaded

    def expect(self, fingerprint: str | None, dim: int) -> None:
        """Take note of the encoder that made the database's vectors, stored since by another process.

        Raises:
            EncoderChangedError: Another one is loaded already.
        """
        if self._loaded is not None and self._loaded.fingerprint != fingerprint:
            raise EncoderChangedError(_changed(fingerprint, self._loaded))
        self._fingerprint, self._dim = fingerprint, dim

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint."""
        return self._fingerprint or self.load().fingerprint

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._dim or self.load().dim

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Encode texts."""
        return self.load().encode(texts)


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
        stored = self.record.components
        self._components = None if stored is None else components_from_bytes(stored)
        dim = None if self._components is None else len(self._components.centre)
        self._encoder = LazyEncoder(encoder, self.record.encoder_fingerprint, dim)
        self._vectors = SqlVectors(store, clock)
        self._contents: dict[int, np.ndarray] = {}
        self._tables: tuple[Roster, tuple[int, int], Tables] | None = None
        self._count_lock = threading.Lock()
        self.roster = build_roster([], [], {})
        self.schema: ContextRecord = store.models.context(self.record.model_id)
        self.activated = store.learning.impressions(self.record.model_id)
        self.reload()

    def reload(self) -> None:
        """Reread campaigns, creatives and the context schema."""
        with self._lock:
            if self._components is None:
                self.reread_components()
            campaigns = self._store.campaigns.all(self.record.model_id)
            creatives = self._store.campaigns.all_creatives(self.record.model_id)
            new = [creative for creative in creatives if creative.creative_id not in self._contents]
            if new:
                features = self._components_in_use().project(
                    self._embed([texts_of(creative) for creative in new])
                )
                self._contents.update(zip((creative.creative_id for creative in new), features, strict=True))
            self.roster = build_roster(campaigns, creatives, self._contents, self.roster)
            self.schema = self._store.models.context(self.record.model_id)

    def reread_components(self) -> None:
        """Take the encoder and components that another process has stored; contents follow at `reload`."""
        with self._lock:
            stored = self._store.models.get_or_create(
                seed=self.record.seed, encoder_fingerprint=None, settings=self.record.settings
            )
            if stored.components is not None and stored.components != self.record.components:
                self._components = components_from_bytes(stored.components)
                self._encoder.expect(stored.encoder_fingerprint, len(self._components.centre))
                self._contents.clear()
            self.record = stored

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

    def prepare_texts(self, texts: Sequence[Mapping[str, str]]) -> None:
        """Encode texts into the database before creatives refer to them."""
        with self._lock:
            self._components_in_use()
            self._embed(texts)

    def entry(self, campaign: str) -> CampaignEntry:
        """Return a campaign; rereads once when it is not known yet.

        Raises:
            UnknownCampaignError: There is none of this name.
        """
        if campaign not in self.roster.campaigns:
            self._store.campaigns.get(campaign)
            self.reload()
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

    def tables(self, n_arms: int, n_campaigns: int) -> Tables:
        """Return contents on the device, padded to a capacity; call it in double precision."""
        roster, known = self.roster, self._tables
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

    def refresh_components(self) -> bool:
        """Fit components to the database's own texts, once there are enough, where none ship for the encoder.

        Returns:
            Whether they changed; then every feature did, and the posterior must be fitted anew.
        """
        if self._components is None or self.record.settings.get("components") != "random":
            return False
        with self._lock:
            creatives = self._store.campaigns.all_creatives(self.record.model_id)
            texts = sorted({text for creative in creatives for text in texts_of(creative).values()})
            if len(texts) < TEXTS_TO_FIT:
                return False
            fitted = fit_components(self._embed([{"headline": text} for text in texts]))
            self._keep_components(fitted, "fitted", refit_due=True)
            self._contents.clear()
            self.reload()
            for entry in self.roster.campaigns.values():
                if entry.record.mean_content is not None:
                    mean = self.roster.current_mean(entry).astype("<f4")
                    self._store.campaigns.set_mean_content(
                        entry.record.campaign_id, mean.tobytes(), force=True
                    )
            self.reload()
            return True

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
        """Return the components; a new model takes those that ship for its encoder, or random ones."""
        if self._components is None:
            self.reread_components()
        if self._components is None:
            encoder = self._encoder.load()
            shipped = shipped_components(encoder)
            components = shipped or random_components(encoder.dim, self.record.seed)
            self._keep_components(components, "random" if shipped is None else "shipped")
            return components
        return self._components

    def _keep_components(self, components: Components, origin: str, **settings: bool) -> None:
        self._components = components
        self.record = self._store.models.set_encoder(
            self.record.model_id,
            self._encoder.fingerprint,
            components_to_bytes(components),
            settings={"components": origin, **settings},
        )


def _changed(expected: str | None, encoder: Encoder) -> str:
    return (
        f"the database's vectors were made by the encoder {expected}, this one is {encoder.fingerprint}; "
        "open it with the same encoder, or start a new database"
    )


def texts_of(creative: CreativeRecord) -> dict[str, str]:
    """Return a creative's texts by field; those that are empty are left out."""
    return {name: creative.content[name] for name in TEXT_FIELDS if creative.content.get(name)}

"""Models: settings of a posterior, and the schema of its contexts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

from sqlalchemy import Connection, RowMapping, select, update

from storage.database.dialect import insert_or_skip
from storage.database.session import Database
from storage.errors import EncoderSwappedError, StepConflictError, UnknownModelError
from storage.learning_records import NewFeatures
from storage.records import ContextCountRecord, ContextKind, ContextRecord, ModelRecord
from storage.schema.columns import canonical_json
from storage.schema.tables import Campaign, Creative, Model
from storage.topics import context_schema
from storage.validation import check_integer, check_text


@final
class Models:
    """The topic `store.models`: one public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get_or_create(
        self,
        name: str = "default",
        *,
        seed: int,
        encoder_fingerprint: str | None,
        settings: Mapping[str, Any],
    ) -> ModelRecord:
        """Return the model of this name; make it when there is none.

        Args:
            name: The model.
            seed: For a new one; from 0 to 2**63 - 1.
            encoder_fingerprint: For a new one; None until a text was encoded.
            settings: For a new one.

        Returns:
            The stored model: whoever came first gave its settings.

        Raises:
            InvalidValueError: A value cannot be stored.
        """
        check_text(name, "the model's name")
        if encoder_fingerprint is not None:
            check_text(encoder_fingerprint, "encoder_fingerprint")
        check_integer(seed, "seed")
        canonical_json(dict(settings), what="settings")
        values = {
            "name": name,
            "seed": seed,
            "encoder_fingerprint": encoder_fingerprint,
            "settings": dict(settings),
        }

        def work(connection: Connection) -> ModelRecord:
            insert_or_skip(connection, Model, [values])
            query = select(Model.__table__).where(Model.name == name)
            return _record(connection.execute(query).mappings().one())

        return self._database.write(work)

    def get(self, name: str = "default") -> ModelRecord:
        """Return the model of this name.

        Raises:
            UnknownModelError: There is none.
        """
        query = select(Model.__table__).where(Model.name == name)

        def work(connection: Connection) -> ModelRecord:
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                raise UnknownModelError(
                    f"there is no model {name!r} yet; it is made when a campaign is added, "
                    "as by: creative-bandit campaign add"
                )
            return _record(row)

        return self._database.read(work)

    def settings(self, model_id: int) -> dict[str, Any]:
        """Return a model's settings as they are now.

        Raises:
            UnknownModelError: No such model.
        """
        query = select(Model.settings).where(Model.model_id == model_id)

        def work(connection: Connection) -> dict[str, Any]:
            stored = connection.execute(query).scalar_one_or_none()
            if stored is None:
                raise UnknownModelError(f"there is no model {model_id}")
            return stored

        return self._database.read(work)

    def set_encoder(
        self,
        model_id: int,
        encoder_fingerprint: str,
        components: bytes | None,
        *,
        settings: Mapping[str, Any],
    ) -> ModelRecord:
        """Store the encoder of a model that has none, with the components and settings that belong to it.

        A learning step changes it later, see `StepRecord.features`.

        Args:
            model_id: The model.
            encoder_fingerprint: The encoder.
            components: The components, as the engine reads them.
            settings: See `change_settings`.

        Returns:
            The model as it is now: of two processes the first gave its encoder.

        Raises:
            UnknownModelError: No such model.
        """
        check_text(encoder_fingerprint, "encoder_fingerprint")
        canonical_json(dict(settings), what="settings")
        values = {"encoder_fingerprint": encoder_fingerprint, "components": components}

        def work(connection: Connection) -> ModelRecord:
            stored = _locked(connection, model_id)
            return stored if stored.components is not None else _changed(connection, stored, settings, values)

        return self._database.write(work)

    def change_settings(self, model_id: int, settings: Mapping[str, Any]) -> ModelRecord:
        """Change some settings; those that are not named stay as they are, whoever changed them last.

        Returns:
            The model as it is now.

        Raises:
            UnknownModelError: No such model.
            InvalidValueError: A value cannot be stored.
        """
        return self._change(model_id, settings)

    def change_context_policy(self, model_id: int, policy: Mapping[str, str], new_secret: str) -> ModelRecord:
        """Change what is done with some context fields; the others stay as they are.

        Args:
            model_id: The model.
            policy: "hash" or "drop" by field; "keep" ends it.
            new_secret: The key of hashes, for a model that has none: of two processes the first gives it.

        Returns:
            The model as it is now.

        Raises:
            UnknownModelError: No such model.
            InvalidValueError: A name cannot be stored.
        """
        canonical_json(dict(policy), what="the context policy")

        def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
            merged = {**settings.get("context_policy", {}), **policy}
            return {
                "context_policy": {field: how for field, how in merged.items() if how != "keep"},
                "context_secret": settings.get("context_secret", new_secret),
            }

        return self._change(model_id, changed)

    def context(self, model_id: int) -> ContextRecord:
        """Return the model's context schema; empty when it has seen no field."""
        return self._database.read(lambda connection: context_schema.read(connection, model_id))

    def add_context_fields(
        self, model_id: int, fields: Mapping[str, ContextKind], *, max_slots: int = 16
    ) -> ContextRecord:
        """Add the fields that are new; each takes its first slot while slots are free.

        Args:
            model_id: The model.
            fields: Names and kinds, in the order in which they take slots.
            max_slots: How many slots there are in all.

        Returns:
            The schema after it.

        Raises:
            ContextKindError: A field is known with another kind; nothing was added.
            UnknownModelError: No such model.
        """
        for field in fields:
            check_text(field, "a context field's name")

        def work(connection: Connection) -> ContextRecord:
            _lock(connection, model_id)
            return context_schema.add_fields(connection, model_id, fields, max_slots)

        return self._database.write(work)

    def give_context_slot(
        self, model_id: int, field: str, level: str, *, max_slots: int = 16, max_levels: int = 8
    ) -> ContextRecord:
        """Give a level of a string field a slot of its own, if it has none and one is free.

        Args:
            model_id: The model.
            field: A string field that is known.
            level: The value.
            max_slots: How many slots there are in all.
            max_levels: How many levels of one field may have slots.

        Returns:
            The schema after it; unchanged when the level has a slot, or none is free.

        Raises:
            UnknownContextFieldError: The model has not seen the field.
            ContextKindError: Its values are no strings.
            UnknownModelError: No such model.
        """
        check_text(level, f"the level of {field!r}", is_empty_allowed=True)

        def work(connection: Connection) -> ContextRecord:
            _lock(connection, model_id)
            return context_schema.give_slot(
                connection, model_id, field, level, max_slots=max_slots, max_levels=max_levels
            )

        return self._database.write(work)

    def set_context_moments(self, model_id: int, field: str, *, mean: float, sd: float) -> ContextRecord:
        """Set the moments by which a number is standardised; the first ones stay.

        Args:
            model_id: The model.
            field: A number field.
            mean: In the field's unit.
            sd: In the field's unit, above 0.

        Returns:
            The schema after it; unchanged when moments were set, or the field has no slot.

        Raises:
            UnknownContextFieldError: The model has not seen the field.
            ContextKindError: Its values are no numbers.
            InvalidValueError: A moment is not finite, or sd is not above 0.
            UnknownModelError: No such model.
        """

        def work(connection: Connection) -> ContextRecord:
            _lock(connection, model_id)
            return context_schema.set_moments(connection, model_id, field, mean, sd)

        return self._database.write(work)

    def context_counts(self, model_id: int) -> list[ContextCountRecord]:
        """Return how many learnt decisions had each level, by field and level."""
        return self._database.read(lambda connection: context_schema.counts(connection, model_id))

    def _change(
        self,
        model_id: int,
        settings: Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> ModelRecord:
        """Change settings to given ones, or to what a function makes of those that are stored."""
        if not callable(settings):
            canonical_json(dict(settings), what="settings")

        def work(connection: Connection) -> ModelRecord:
            stored = _locked(connection, model_id)
            new = settings(stored.settings) if callable(settings) else settings
            return _changed(connection, stored, new, {})

        return self._database.write(work)


def change_features(connection: Connection, model_id: int, features: NewFeatures) -> None:
    """Replace encoder, components and mean contents; the transaction is the caller's.

    Raises:
        StepConflictError: Creatives were added since the features were computed.
    """
    stored = _locked(connection, model_id)  # creatives are not added meanwhile, see `creatives.add`
    there = select(Creative.creative_id).join(Campaign).where(Campaign.model_id == model_id)
    if new := set(connection.execute(there).scalars()) - features.creative_ids:
        raise StepConflictError(
            f"model {model_id}: {len(new)} creatives were added since its new features were computed, the "
            f"first {min(new)}; compute them again"
        )
    values = {"encoder_fingerprint": features.encoder_fingerprint, "components": features.components}
    _changed(connection, stored, features.settings, values)
    for campaign_id, mean_content in sorted(features.mean_contents.items()):
        statement = update(Campaign).where(Campaign.campaign_id == campaign_id)
        connection.execute(statement.values(mean_content=mean_content))


def hold_encoder(connection: Connection, campaign_id: int, encoder_fingerprint: str) -> None:
    """Keep a campaign's encoder as it is for the rest of the transaction.

    Raises:
        EncoderSwappedError: It is another one.
    """
    of_campaign = select(Campaign.model_id).where(Campaign.campaign_id == campaign_id).scalar_subquery()
    query = select(Model.encoder_fingerprint).where(Model.model_id == of_campaign)
    now = connection.execute(query.with_for_update(read=True)).scalar_one_or_none()
    if now is not None and now != encoder_fingerprint:
        raise EncoderSwappedError(
            f"the texts were encoded by {encoder_fingerprint}, and meanwhile the database's encoder was "
            f"swapped for {now}; nothing was added. Add them again, with that encoder"
        )


def _lock(connection: Connection, model_id: int) -> None:
    """Let one transaction at a time change a model's context schema."""
    query = select(Model.model_id).where(Model.model_id == model_id).with_for_update(key_share=True)
    if connection.execute(query).one_or_none() is None:
        raise UnknownModelError(f"there is no model {model_id}")


def _locked(connection: Connection, model_id: int) -> ModelRecord:
    _lock(connection, model_id)
    query = select(Model.__table__).where(Model.model_id == model_id)
    return _record(connection.execute(query).mappings().one())


def _changed(
    connection: Connection, stored: ModelRecord, settings: Mapping[str, Any], values: Mapping[str, Any]
) -> ModelRecord:
    changed = {**values, "settings": {**stored.settings, **settings}}
    connection.execute(update(Model).where(Model.model_id == stored.model_id).values(changed))
    return replace(stored, **changed)


def _record(row: RowMapping) -> ModelRecord:
    return ModelRecord(**row)

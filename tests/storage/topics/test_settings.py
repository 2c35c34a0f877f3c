"""Models, contexts, campaigns, creatives and embeddings."""

import threading
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

import storage
from storage import NewCreative, Store
from tests.storage.conftest import NOW, World
from tests.storage.sql import execute


class TestModels:
    """A model is made once."""

    def test_the_first_gives_the_settings(self, store: Store) -> None:
        settings = {"tau": 0.25, "scales": {"content": 0.22}}
        first = store.models.get_or_create(seed=5, encoder_fingerprint="a", settings=settings)
        again = store.models.get_or_create(seed=6, encoder_fingerprint="b", settings={})
        assert first == again
        assert (first.seed, first.encoder_fingerprint, first.components) == (5, "a", None)
        assert first.settings == settings

    def test_encoder_and_components_change(self, store: Store) -> None:
        model = store.models.get_or_create(seed=5, encoder_fingerprint="a", settings={})
        store.models.set_encoder(model.model_id, "b", b"\0\1", settings={"dim": 2})
        changed = store.models.get_or_create(seed=5, encoder_fingerprint="a", settings={})
        assert (changed.encoder_fingerprint, changed.components) == ("b", b"\0\1")
        assert changed.settings == {"dim": 2}

    @pytest.mark.parametrize("seed", [2**63, -1, 1.5, True])
    def test_a_seed_that_no_column_holds_is_refused(self, sqlite_world: World, seed: int) -> None:
        with pytest.raises(storage.InvalidValueError, match=f"got {seed}"):
            sqlite_world.store.models.get_or_create("m", seed=seed, encoder_fingerprint="a", settings={})

    def test_an_unknown_model_is_named(self, store: Store) -> None:
        with pytest.raises(storage.UnknownModelError, match="no model 77"):
            store.models.set_encoder(77, "b", b"", settings={})
        with pytest.raises(storage.UnknownModelError, match="no model 78"):
            store.models.add_context_fields(78, {"device": "string"})


class TestContext:
    """Slots are given out once, in the order of versions."""

    def test_a_field_takes_its_first_slot(self, world: World) -> None:
        models, model_id = world.store.models, world.model_id
        assert models.context(model_id).version == 0
        context = models.add_context_fields(model_id, {"device": "string", "age": "number"})
        assert context == models.add_context_fields(model_id, {"age": "number"})
        assert context.fields == {"age": "number", "device": "string"}
        assert [(slot.slot, slot.field, slot.level, slot.version) for slot in context.slots] == [
            (0, "device", None, 1),
            (1, "age", None, 2),
        ]

    def test_levels_and_moments_make_versions(self, world: World) -> None:
        models, model_id = world.store.models, world.model_id
        models.add_context_fields(model_id, {"device": "string", "age": "number"})
        models.give_context_slot(model_id, "device", "mobile")
        models.set_context_moments(model_id, "age", mean=40.0, sd=12.5)
        context = models.give_context_slot(model_id, "device", "")
        assert context == models.give_context_slot(model_id, "device", "mobile")
        assert context == models.set_context_moments(model_id, "age", mean=1.0, sd=1.0)
        assert context == models.context(model_id)
        assert context.version == 5
        slots = [
            (slot.level, slot.mean, slot.sd, slot.version, slot.moments_version) for slot in context.slots
        ]
        assert slots == [
            (None, None, None, 1, None),
            (None, 40.0, 12.5, 2, 4),
            ("mobile", None, None, 3, None),
            ("", None, None, 5, None),
        ]

    def test_slots_run_out(self, world: World) -> None:
        models, model_id = world.store.models, world.model_id
        fields = {"a": "string", "b": "boolean", "c": "string"}
        context = models.add_context_fields(model_id, fields, max_slots=2)  # type: ignore[arg-type]  # literals of a dict
        assert [slot.field for slot in context.slots] == ["a", "b"]
        assert set(context.fields) == {"a", "b", "c"}
        assert models.give_context_slot(model_id, "a", "x", max_slots=2) == context
        assert models.give_context_slot(model_id, "c", "x", max_slots=16) == context  # has no "other" slot
        for level in "stuv":
            context = models.give_context_slot(model_id, "a", level, max_levels=3)
        assert [slot.level for slot in context.slots] == [None, None, "s", "t", "u"]

    def test_a_field_keeps_its_kind(self, world: World) -> None:
        models, model_id = world.store.models, world.model_id
        models.add_context_fields(model_id, {"age": "number"})
        with pytest.raises(storage.ContextKindError, match="'age' is known with number values, got a string"):
            models.add_context_fields(model_id, {"new": "string", "age": "string"})
        with pytest.raises(storage.ContextKindError, match="'age' is known with number values, got a string"):
            models.give_context_slot(model_id, "age", "old")
        with pytest.raises(storage.UnknownContextFieldError, match="'aeg'; known: age"):
            models.set_context_moments(model_id, "aeg", mean=0.0, sd=1.0)
        with pytest.raises(storage.InvalidValueError, match=r"'age': .* sd=0\.0"):
            models.set_context_moments(model_id, "age", mean=0.0, sd=0.0)
        assert set(models.context(model_id).fields) == {"age"}

    def test_threads_that_add_fields_agree(self, world: World) -> None:
        names = [f"f{number}" for number in range(6)]

        def add(thread: int) -> None:
            for name in names[thread:] + names[:thread]:
                world.store.models.add_context_fields(world.model_id, {name: "number"}, max_slots=4)

        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        context = world.store.models.context(world.model_id)
        assert sorted(context.fields) == names
        assert [(slot.slot, slot.version) for slot in context.slots] == [(0, 1), (1, 2), (2, 3), (3, 4)]


class TestCampaigns:
    """Campaigns and their creatives."""

    @pytest.mark.parametrize("horizon", ["auto", None, 0, 200_000])
    def test_a_campaign_comes_back_as_it_was_given(self, world: World, horizon: int | None) -> None:
        values = {
            "objective": "conversion",
            "horizon": horizon,
            "attribution_window_s": 90.5,
            "conversion_window_s": 3600.0,
            "uniform_share": 0.02,
            "control_share": 0.1,
            "starts_at": NOW,
            "ends_at": NOW + timedelta(days=7),
            "created_at": NOW,
        }
        added = world.store.campaigns.add(world.model_id, "summer", **values)  # type: ignore[arg-type]  # as a mapping
        assert added == world.store.campaigns.get("summer")
        for name, value in values.items():
            assert getattr(added, name) == value, name
        assert (added.status, added.mean_content) == ("active", None)
        assert [campaign.name for campaign in world.store.campaigns.all(world.model_id)] == [
            "spring",
            "summer",
        ]

    def test_a_name_is_taken_once(self, world: World) -> None:
        with pytest.raises(storage.DuplicateCampaignError, match="campaign 'spring' exists"):
            world.store.campaigns.add(world.model_id, "spring", created_at=NOW)

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"horizon": 1.5}, "got 1.5"),
            ({"horizon": -1}, "got -1"),
            ({"uniform_share": 1.5}, "uniform_share"),
            ({"uniform_share": 0.5, "control_share": 0.6}, "uniform_share_control_share"),
            ({"attribution_window_s": -1.0}, "attribution_window_s"),
            ({"starts_at": NOW, "ends_at": NOW}, "ends_at"),
        ],
    )
    def test_a_setting_out_of_range_is_refused(
        self, world: World, changes: dict[str, object], named: str
    ) -> None:
        with pytest.raises(storage.InvalidValueError) as caught:
            world.store.campaigns.add(world.model_id, "bad", created_at=NOW, **changes)  # type: ignore[arg-type]  # wrong on purpose
        assert named in str(caught.value)
        with pytest.raises(storage.UnknownCampaignError):
            world.store.campaigns.get("bad")

    def test_an_unknown_name_gets_close_ones(self, world: World) -> None:
        with pytest.raises(storage.UnknownCampaignError, match="no campaign 'sprong'; did you mean 'spring'"):
            world.store.campaigns.get("sprong")
        with pytest.raises(storage.UnknownCampaignError, match=r"no campaign 'xyz'$"):
            world.store.campaigns.set_status("xyz", "paused")
        with pytest.raises(storage.UnknownCampaignError, match="no campaign 'sprin'; did you mean 'spring'"):
            world.store.campaigns.creatives("sprin")

    def test_status(self, world: World) -> None:
        world.store.campaigns.set_status("spring", "paused")
        assert world.store.campaigns.get("spring").status == "paused"
        with pytest.raises(storage.InvalidValueError, match="got 'retired'"):
            world.store.campaigns.set_status("spring", "retired")  # type: ignore[arg-type]  # wrong on purpose

    def test_the_first_mean_content_stays(self, world: World) -> None:
        set_mean = world.store.campaigns.set_mean_content
        assert set_mean(world.campaign_id, b"first") == b"first"
        assert set_mean(world.campaign_id, b"second") == b"first"
        assert set_mean(world.campaign_id, b"refit", force=True) == b"refit"
        assert world.store.campaigns.get("spring").mean_content == b"refit"
        with pytest.raises(storage.UnknownCampaignError, match="campaign_id 99"):
            set_mean(99, b"")

    def test_creatives_are_added_all_or_none(self, world: World) -> None:
        def new(name: str) -> NewCreative:
            return NewCreative(
                external_id=name, content={"headline": "Grüße 🎁"}, content_hash="h", picture="p.png"
            )

        with pytest.raises(storage.DuplicateCreativeError, match=r"'spring' .*: 'calm', 'twice', 'urgent';"):
            world.store.campaigns.add_creatives(
                world.campaign_id,
                [new(name) for name in ("fresh", "urgent", "twice", "calm", "twice")],
                created_at=NOW,
            )
        added = world.store.campaigns.add_creatives(world.campaign_id, [new("z"), new("a")], created_at=NOW)
        assert [creative.external_id for creative in added] == ["z", "a"]
        assert added[0].content == {"headline": "Grüße 🎁"}
        assert (added[0].picture, added[0].status, added[0].created_at) == ("p.png", "active", NOW)
        stored = world.store.campaigns.creatives("spring")
        assert [creative.external_id for creative in stored] == ["calm", "urgent", "plain", "z", "a"]
        assert world.store.campaigns.all_creatives(world.model_id) == stored
        with pytest.raises(storage.UnknownCampaignError, match="campaign_id 99"):
            world.store.campaigns.add_creatives(99, [new("a")], created_at=NOW)

    @pytest.mark.parametrize(
        ("content", "named"),
        [({"headline": "a\0b"}, "holds a NUL"), ({"headline": "\ud800"}, "surrogates not allowed")],
    )
    def test_a_text_that_cannot_be_stored_is_refused(
        self, sqlite_world: World, content: dict[str, str], named: str
    ) -> None:
        new = NewCreative(external_id="bad", content=content, content_hash="h")
        with pytest.raises(storage.InvalidValueError, match="creative 'bad'") as caught:
            sqlite_world.store.campaigns.add_creatives(sqlite_world.campaign_id, [new], created_at=NOW)
        assert named in str(caught.value)

    def test_retired_is_final(self, world: World) -> None:
        set_status = world.store.campaigns.set_creative_status
        assert set_status("spring", "calm", "paused").status == "paused"
        assert set_status("spring", "calm", "active").status == "active"
        assert set_status("spring", "calm", "retired").status == "retired"
        assert set_status("spring", "calm", "retired").status == "retired"
        with pytest.raises(storage.RetiredCreativeError, match=r"'calm' .* cannot become active"):
            set_status("spring", "calm", "active")
        with pytest.raises(storage.UnknownCreativeError, match="no creative 'clam'; did you mean 'calm'"):
            set_status("spring", "clam", "paused")


class TestLimits:
    """Floors and caps of creatives."""

    def test_they_come_back_and_others_notice(self, world: World) -> None:
        before = world.store.campaigns.version(world.model_id)
        changed = world.store.campaigns.set_limits("spring", "calm", floor=0.2, cap=0.5)
        assert (changed.floor, changed.cap) == (0.2, 0.5)
        again = world.store.campaigns.set_limits("spring", "calm", floor=0.1)
        assert (again.floor, again.cap) == (0.1, 0.5)
        assert world.store.campaigns.creatives("spring")[0] == again
        versions = [before, world.store.campaigns.version(world.model_id)]
        world.store.campaigns.set_limits("spring", "calm", floor=0.0, cap=1.0)
        versions.append(world.store.campaigns.version(world.model_id))
        assert len(set(versions)) == 3

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"floor": 0.6, "cap": 0.5},
                "creative 'calm' of campaign 'spring': .* floor 0.6 and cap 0.5",
            ),
            ({"floor": 1.2}, "got floor 1.2 and cap 1.0"),
            ({"floor": float("nan")}, "got floor nan"),
            ({"floor": True}, "got floor True"),
            ({"cap": 0.0}, "got floor 0.0 and cap 0.0"),
            # 0.01 of uniform share for three creatives.
            (
                {"floor": 0.995},
                "floors of its 3 active creatives sum to 1.00167, each .* 0.00333333",
            ),
            ({"cap": 0.003}, "cap of 'calm' is below the 0.00333333 that each of its 3"),
        ],
    )
    def test_what_cannot_be_kept_is_refused(
        self, world: World, changes: dict[str, float], message: str
    ) -> None:
        with pytest.raises(storage.InvalidLimitsError, match=message):
            world.store.campaigns.set_limits("spring", "calm", **changes)
        assert [(c.floor, c.cap) for c in world.store.campaigns.creatives("spring")] == [(0.0, 1.0)] * 3
        with pytest.raises(storage.UnknownCreativeError, match="'clam'; did you mean 'calm'"):
            world.store.campaigns.set_limits("spring", "clam", floor=0.1)

    def test_all_active_creatives_count(self, world: World) -> None:
        campaigns = world.store.campaigns
        campaigns.set_creative_status("spring", "plain", "paused")
        for name in ("calm", "urgent"):
            campaigns.set_limits("spring", name, floor=0.4, cap=0.6)
        with pytest.raises(storage.InvalidLimitsError, match=r"caps of its 2 .* sum to 0\.9;"):
            campaigns.set_limits("spring", "urgent", floor=0.0, cap=0.3)
        campaigns.set_limits("spring", "plain", floor=0.9)  # it is paused
        campaigns.set_limits("spring", "plain", floor=0.3)
        with pytest.raises(storage.InvalidLimitsError, match=r"floors of its 3 .* sum to 1\.1,"):
            campaigns.set_creative_status("spring", "plain", "active")
        assert campaigns.creatives("spring")[2].status == "paused"
        new = NewCreative(external_id="new", content={}, content_hash="h", floor=0.25)
        with pytest.raises(storage.InvalidLimitsError, match=r"floors of its 3 .* sum to 1\.05,"):
            campaigns.add_creatives(world.campaign_id, [new], created_at=NOW)
        assert len(campaigns.creatives("spring")) == 3
        # What only one of them can be shown for is no reason to show both.
        campaigns.set_creative_status("spring", "urgent", "paused")

    def test_the_database_refuses_them_too(self, sqlite_world: World, migrated_sqlite_url: str) -> None:
        for wrong in ("floor = 0.6, cap = 0.5", "floor = -0.1", "cap = 1.5", "floor = 0, cap = 0"):
            with pytest.raises(IntegrityError, match="ck_creatives_"):
                execute(migrated_sqlite_url, f"UPDATE creatives SET {wrong}")


class TestEmbeddings:
    """Vectors come back bit for bit, and the first one stays."""

    def test_vectors_come_back(self, store: Store) -> None:
        vectors = {"h1": np.array([1.5, -1e-30, 3e38], np.float32), "h2": np.zeros(2, np.float32)}
        store.embeddings.add("encoder", vectors, created_at=NOW)
        store.embeddings.add("encoder", {"h1": np.ones(3, np.float32)}, created_at=NOW)
        store.embeddings.add("other", {"h1": np.ones(1, np.float32)}, created_at=NOW)
        store.embeddings.add("encoder", {}, created_at=NOW)
        stored = store.embeddings.get(["h1", "h2", "h3"], "encoder")
        assert stored.keys() == vectors.keys()
        for name, vector in vectors.items():
            np.testing.assert_array_equal(stored[name], vector)
            assert stored[name].dtype == np.float32
        assert store.embeddings.get([], "encoder") == {}

    def test_what_is_no_vector_is_refused(self, sqlite_world: World) -> None:
        for bad, named in ((np.ones((2, 2), np.float32), r"shape \(2, 2\)"), (np.array([np.nan]), "float64")):
            with pytest.raises(storage.InvalidValueError, match=f"'h1': .*{named}"):
                sqlite_world.store.embeddings.add("encoder", {"h1": bad}, created_at=NOW)

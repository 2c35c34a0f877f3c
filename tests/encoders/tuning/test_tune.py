"""Tuning the tiny BERT from campaigns to a folder that an engine opens."""

import json
import resource
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from bandit import Creative, Engine
from encoders import TextEncoder, TextTypeError
from encoders.checkpoint import load_bert
from encoders.config import parse_config, read_json
from encoders.errors import TuningError
from encoders.tuning import PastCampaign, TuningReport, TuningSettings, tune
from encoders.tuning.campaigns import discounted, divide
from encoders.tuning.export import export
from encoders.tuning.parameters import LORA_SCALE, last_layers, low_rank, parameters_of
from tests.encoders.tuning.worlds import planted
from tests.paths import TINY

QUICK = {"epochs": 8, "learning_rate": 3e-3, "held_out": 0.25}


@pytest.fixture(scope="module", params=["last", "lora"])
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TuningReport:
    out = tmp_path_factory.mktemp("tuned") / request.param
    return tune(planted(300, seed=0), out, TuningSettings(method=request.param, rank=4, **QUICK), TINY)


def campaign(name: str, texts: list[str], impressions: list[float], clicks: list[float]) -> PastCampaign:
    creatives = tuple({"headline": text} for text in texts)
    return PastCampaign(name, creatives, np.array(impressions), np.array(clicks))


def usual(name: str, *texts: str) -> PastCampaign:
    return campaign(name, list(texts), [100.0] * len(texts), [5.0] * len(texts))


@pytest.mark.slow
def test_learns_a_planted_word(tuned: TuningReport) -> None:
    measures = {measure.name: measure for measure in tuned.measures}
    pairs = measures["significant pairs in order"]
    assert pairs.after > 0.7, pairs
    assert measures["log-likelihood"].verdict == pairs.verdict == "better"
    assert tuned.kept == max(tuned.epochs[1:], key=lambda epoch: epoch.stopping_gain).epoch
    assert tuned.campaigns == {"training": 203, "stopping": 22, "held_out": 75}


def test_folder_is_an_encoder_that_an_engine_opens(tuned: TuningReport, tmp_path: Path) -> None:
    with Engine.open(tmp_path / "ads.db", learn="inline", encoder=tuned.folder) as engine:
        engine.add_campaign("shoes", attribution_window=0)
        engine.add_creatives("shoes", [Creative("a", headline="free shoes"), Creative("b", headline="coat")])
        assert engine.select("shoes").creative_id in {"a", "b"}
        engine.update(engine.select("shoes").id, click=True)
    with Engine.open(tmp_path / "new.db", learn="inline", encoder=TINY) as engine:
        engine.warm_start_from(tmp_path / "ads.db")  # to another encoder, without losing a count
        assert sum(arm.history_clicks for arm in engine.arms("shoes")) == 1
    encoder, before = TextEncoder(tuned.folder), TextEncoder(TINY)
    assert encoder.fingerprint != before.fingerprint
    assert np.abs(encoder.encode(["free shoes"]) - before.encode(["free shoes"])).max() > 0.01
    notes = json.loads((tuned.folder / "tuning.json").read_text())
    assert notes["tuned_from"]["weights_sha256"] == before.weights_sha256
    assert notes["held_out"][0]["gain"] == tuned.measures[0].gain
    assert [path.name for path in tuned.folder.parent.iterdir()] == [tuned.folder.name]
    assert {path.stat().st_mode & 0o777 for path in tuned.folder.iterdir()} == {0o644}


def test_only_what_trains_has_changed(tuned: TuningReport) -> None:
    old, new = (load_file(folder / "model.safetensors") for folder in (TINY, tuned.folder))
    changed = {name for name in new if not np.array_equal(old[name], new[name])}
    assert new.keys() <= old.keys()
    if tuned.folder.name == "last":
        assert changed == {name for name in new if name.startswith(("encoder.layer.1.", "encoder.layer.2."))}
    else:
        assert changed == {n for n in new if "layer." in n and n.endswith("weight") and "Norm" not in n}
        for name in changed:
            part = np.linalg.svd(new[name] - old[name], compute_uv=False)
            assert part[4] < 1e-5 * part[0], name  # rank 4, merged


def test_low_rank_additions_merge_to_what_they_compute() -> None:
    config = parse_config(read_json(TINY / "config.json"), "tiny")
    parameters = parameters_of(load_bert(TINY, config))
    trained = low_rank(parameters, 3, jax.random.key(0))
    start = trained.combine(parameters, trained.initial)
    assert all(np.array_equal(start[name], parameters[name]) for name in parameters)
    pairs = {name: (a, b + 0.1) for name, (a, b) in trained.initial.items()}
    assert len(pairs) == 4 * config.num_hidden_layers
    merged = trained.combine(parameters, pairs)
    for name, (a, b) in pairs.items():
        x = np.random.default_rng(0).normal(size=(5, a.shape[0])).astype(np.float32)
        apart = x @ np.asarray(parameters[name]) + LORA_SCALE * (x @ np.asarray(a)) @ np.asarray(b)
        np.testing.assert_allclose(x @ np.asarray(merged[name]), apart, atol=1e-5)
    with pytest.raises(TuningError, match="rank 24: the matrices have 24"):
        low_rank(parameters, 24, jax.random.key(0))
    with pytest.raises(TuningError, match="last 4 layers, but the model has 3"):
        last_layers(parameters, config.num_hidden_layers, 4)


def test_parts_are_pooled_ordered_and_new() -> None:
    history = [
        usual("first", "a", "b", "a"),
        usual("one text", "c", "c"),
        campaign("no click", ["d", "e"], [10.0, 10.0], [0.0, 0.0]),
        campaign("never shown", ["f", "g"], [10.0, 0.0], [1.0, 0.0]),
        usual("second", "h", "i"),
        usual("third", "a", "j", "k"),
    ]
    parts = divide(history, held_out=0.2, stopping=0.1)
    assert [[each.name for each in part] for part in parts] == [["first"], ["second"], ["third"]]
    assert parts.training[0].impressions.tolist() == [200, 100]
    assert [creative["headline"] for creative in parts.held_out[0].creatives] == ["j", "k"]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([usual("a", "x"), usual("b", "y")], "of 2 campaigns, 0 have two creatives"),
        ([usual(name, "x", "y") for name in "abcd"], "0 to stop it and 0 to report on"),
        ([campaign("odd", ["x", "y"], [10.0, 10.0], [1.0, 11.0])], "'odd', creative 1: 11 clicks on 10"),
        ([campaign("odd", ["x", "y"], [10.0, np.nan], [1.0, 1.0])], "'odd', creative 1: 1 clicks on nan"),
        ([campaign("odd", ["x", "y"], [10.0], [1.0, 1.0])], "2 creatives, but impressions of shape"),
    ],
)
def test_useless_history_is_refused(history: list[PastCampaign], message: str, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=message):
        tune(history, tmp_path / "out", model=TINY)
    assert list(tmp_path.iterdir()) == []


def test_texts_of_the_wrong_type_are_refused(tmp_path: Path) -> None:
    wrong = usual("odd", "x", "y")._replace(creatives=({"headline": "x"}, {"headline": 3}))  # type: ignore[dict-item]
    with pytest.raises(TextTypeError, match=r"'odd', creative 1: .* headline = 3 of type int"):
        tune([wrong], tmp_path / "out", model=TINY)


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(TuningError, match=r"epochs 0: .*; learning_rate nan: .*; held_out 1.0: "):
        TuningSettings(epochs=0, learning_rate=float("nan"), held_out=1.0)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=f"{tmp_path} is there already"):
        tune(planted(20, seed=0), tmp_path, model=TINY)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    config = parse_config(read_json(TINY / "config.json"), "tiny")
    parameters = parameters_of(load_bert(TINY, config))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # less than the weights take
    try:
        with pytest.raises(TuningError, match=f"{out} cannot be written: .*; nothing was left there"):
            export(TINY, out, config, parameters, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_exported_unchanged_it_is_the_checkpoint(tmp_path: Path) -> None:
    config = parse_config(read_json(TINY / "config.json"), "tiny")
    export(TINY, tmp_path / "out", config, parameters_of(load_bert(TINY, config)), {})
    old, new = (load_file(folder / "model.safetensors") for folder in (TINY, tmp_path / "out"))
    assert {name for name in old if not name.startswith("pooler.")} == set(new)
    assert all(np.array_equal(old[name], new[name]) for name in new)


def test_discount_keeps_rates_and_matches_the_variance() -> None:
    past = campaign("a", ["x", "y"], [1000.0, 100_000.0], [20.0, 2000.0])
    kept = discounted(past, 0.25)
    np.testing.assert_allclose(kept.clicks / kept.impressions, [0.02, 0.02])
    np.testing.assert_allclose(1 / kept.clicks, [1 / 20 + 0.25**2, 1 / 2000 + 0.25**2])
    np.testing.assert_array_equal(discounted(past, 0.0).clicks, past.clicks)

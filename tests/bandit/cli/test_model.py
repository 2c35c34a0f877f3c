"""`model` and `explain`: what the model says of itself."""

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bandit import Engine
from bandit.cli.explaining import marked
from bandit.types import Word, Wording
from tests.bandit.cli.conftest import TINY, Run


@pytest.mark.usefixtures("ads")
def test_model_shows_settings_and_steps(run: Run) -> None:
    decision = run("select", "spring-sale", "--json").json
    run("update", decision["id"], "--click")
    run("settle")
    shown = run("model").out
    assert "learning step" in shown
    assert "base_rate 0.02" in shown
    document = run("model", "--json", "--steps", "1").json
    assert document["step"] == document["log"][0]["step"] == 1
    assert document["log"][0]["kind"] == "batch"
    assert document["log"][0]["info"]["clicks"] == 1
    assert 0 < document["log"][0]["info"]["expected_clicks"] < 1


@pytest.mark.usefixtures("ads")
def test_explain_shows_the_parts_and_a_sentence(run: Run) -> None:
    document = run("explain", "spring-sale", "calm", "--json").json
    assert sum(part["logit"] for part in document["parts"]) == pytest.approx(document["logit"])
    shown = run("explain", "spring-sale", "calm").out
    assert document["sentence"] in shown
    assert [line.split("  ")[0] for line in shown.splitlines()[2:9]] == [
        *("base rate", "context", "content", "interaction", "campaign", "creative", "sum")
    ]


@pytest.mark.usefixtures("ads")
def test_explain_names_the_creatives(run: Run) -> None:
    failed = run("explain", "spring-sale", "clam")
    assert failed.code == 2
    assert "'clam'" in failed.err
    assert "calm" in failed.err


@pytest.fixture
def clicked(ads: Path) -> Path:
    """The prepared database, where one creative of two was clicked."""
    with Engine.open(ads, learn="manual") as engine:
        for number in range(30):
            decision = engine.select("spring-sale", decision_id=f"d{number}")
            engine.update(decision.id, click=decision.creative_id == "calm")
        engine.settle()
    return ads


@pytest.mark.usefixtures("clicked")
def test_explain_shows_what_words_carry(run: Run) -> None:
    document = run("explain", "spring-sale", "calm", "--words", "--json").json
    wording = document["wording"]
    assert [word["text"] for word in wording["words"]] == ["Free", "returns", ",", "always"]
    shown = run("explain", "spring-sale", "calm", "--words").out
    line = next(line for line in shown.splitlines() if line.startswith("headline: "))
    most = max(wording["words"], key=lambda word: abs(word["logit"]))
    assert f"{most['text']} [{100 * math.expm1(most['logit']):+.1f} %]".replace("-", "−") in line
    assert re.sub(r" \[[^]]*\]", "", line) == "headline: Free returns, always"
    assert "\x1b" not in shown
    last = shown.splitlines()[-1].split()
    assert last[:4] == ["content", "+", "interaction", f"{wording['logit']:+.3f}"]


def test_words_are_coloured_by_what_they_do() -> None:
    text = "Free <b> flash, sale"
    words = tuple(
        Word(field="headline", start=start, end=start + len(word), text=word, logit=logit)
        for word, start, logit in (("Free", 0, 0.02), ("flash", 9, -0.008), ("sale", 16, -0.001))
    )
    wording = Wording(texts={"headline": text}, words=words, masked=0.0, logit=0.011, cut=())
    line = marked(text, "headline", wording, 0.02)
    assert line.plain == "Free [+2.0 %] <b> flash [−0.8 %], sale"
    assert [(line.plain[span.start : span.end], span.style) for span in line.spans] == [
        ("Free [+2.0 %]", "bold blue"),
        ("flash [−0.8 %]", "dark_orange3"),
    ]
    nothing = replace(wording, words=tuple(replace(word, logit=0.0) for word in words))
    assert marked(text, "headline", nothing, 0.0).plain == text


@pytest.mark.slow
@pytest.mark.usefixtures("clicked")
def test_explain_writes_a_page_of_all_creatives(run: Run, tmp_path: Path) -> None:
    assert run("explain", "spring-sale", "--html", "words.html").out == "the page is in words.html\n"
    page = (tmp_path / "words.html").read_text("utf-8")
    assert page.count("<section") == 3
    assert page.count("<mark class=") > 3
    assert page.index("<h2>calm:") < page.index("<h2>urgent:")  # the better one first
    assert run("explain", "--decision", "d1", "--html", "one.html").code == 0
    assert (tmp_path / "one.html").read_text("utf-8").count("<section") == 2


@pytest.mark.usefixtures("ads")
def test_a_page_of_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("explain", "empty", "--html", "a.html").error == (
        "campaign 'empty' has no active creative to explain"
    )
    assert "give either --html or --json" in run("explain", "spring-sale", "--html", "a.html", "--json").err
    assert "ads.db/no: not a directory" in run("explain", "spring-sale", "--html", "ads.db/no/a.html").err
    assert not (tmp_path / "a.html").exists()


def test_model_of_no_database(run: Run, tmp_path: Path) -> None:
    failed = run("model", "--database", str(tmp_path / "none.db"))
    assert failed.code == 2
    assert "there is no creative-bandit database" in failed.err


@pytest.mark.usefixtures("ads")
def test_configure_changes_how_the_model_learns(run: Run) -> None:
    assert run("configure", "--half-life", "30", "--scales", "fixed").code == 0
    document = run("model", "--json").json
    assert (document["half_life_days"], document["learns_scales"]) == (30, False)
    assert "half in 30 days" in run("model").out
    assert run("configure", "--half-life", "never").code == 0
    assert run("model", "--json").json["half_life_days"] is None


@pytest.mark.parametrize("half_life", ["0", "-3", "nan", "inf", "soon"])
@pytest.mark.usefixtures("ads")
def test_a_half_life_that_cannot_be_is_refused(run: Run, half_life: str) -> None:
    answer = run("configure", f"--half-life={half_life}")
    assert answer.code == 2
    assert half_life in answer.err
    assert "days" in answer.err


@pytest.mark.usefixtures("ads")
def test_configure_without_a_setting_is_refused(run: Run) -> None:
    answer = run("configure")
    assert (answer.code, "--half-life" in answer.err) == (2, True)


@pytest.mark.usefixtures("ads")
def test_a_database_turns_to_another_encoder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run("model", "--json").json["encoder"]
    shutil.copytree(TINY, tmp_path / "tuned")
    (tmp_path / "tuned" / "tuning.json").write_text('{"pooling": "levels"}')
    swapped = run("swap-encoder", "tuned", "--json").json
    assert (swapped["before"], swapped["creatives"], swapped["campaigns"]) == (before, 2, 2)
    assert run("model", "--json").json["encoder"] == swapped["after"] != before
    refused = run("creative", "add", "spring-sale", "new", "--headline", "New").error
    assert f"made by the encoder {swapped['after']}, this one is {before}" in refused
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(tmp_path / "tuned"))
    assert run("creative", "add", "spring-sale", "new", "--headline", "New").code == 0
    shown = run("swap-encoder", "default").out
    assert "3 creatives of 2 campaigns have new features; components are random until" in shown
    assert "nowhere is not a folder" in run("swap-encoder", "./nowhere").error

"""`model` and `explain`: what the model says of itself."""

from pathlib import Path

import pytest

from tests.bandit.cli.conftest import Run


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


def test_model_of_no_database(run: Run, tmp_path: Path) -> None:
    failed = run("model", "--database", str(tmp_path / "none.db"))
    assert failed.code == 2
    assert "there is no creative-bandit database" in failed.err

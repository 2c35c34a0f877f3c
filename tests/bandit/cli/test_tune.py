"""`tune`: from a history file to an encoder's folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors import safe_open

from bandit import Creative, Engine, HistoryRow
from bandit.cli.tuning import _told_how_to_go_on, past_campaigns, read_rows
from bandit.cli.tuning_report import print_search
from bandit.features.content_pca import BESIDE
from bandit.warm_start.csv_files import read_history
from encoders import TextEncoder
from encoders.tuning import Search, Trial, TuningSettings
from tests.bandit.cli.conftest import TINY, Run
from tests.bandit.inspect import model_of
from tests.encoders.tuning.worlds import planted

HEADLINES = (
    "Free returns, always",
    "48 hour flash sale",
    "New arrivals for you",
    "Winter coat",
    "Warm shoes",
)


def load_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return dict(json.loads(file.metadata()["made"]))


def write(path: Path, n_campaigns: int) -> None:
    lines = []
    for number in range(n_campaigns):
        for row in range(2):
            headline = f"{HEADLINES[(number + row) % 5]} {'!' * number}"
            lines.append(f'week-{number},{row},"{headline}",500,{10 + 3 * row + number}')
    write_lines(path, lines)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(["campaign,creative,headline,impressions,clicks", *lines]))


@pytest.mark.slow
def test_from_a_file_to_an_encoder(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "history.csv", 12)
    shown = run(
        *("tune", "--history", str(tmp_path / "history.csv"), "--out", str(tmp_path / "tuned")),
        *("--encoder", str(TINY), "--epochs", "1", "--held-out", "0.3"),
    )
    assert shown.code == 0, shown.err
    assert "7 campaigns trained, 1 stopped the training, 4 later ones are reported on" in shown.out
    assert "log-likelihood" in shown.out
    assert shown.out.endswith(
        f"the tuned encoder is in {tmp_path / 'tuned'}, without components: a database fits them once it has "
        "256 different texts\n"
    )
    assert not (tmp_path / "tuned" / BESIDE).exists()
    assert TextEncoder(tmp_path / "tuned").dim == 24


@pytest.mark.slow
def test_a_database_takes_the_components_of_the_tuned_encoder(run: Run, tmp_path: Path) -> None:
    past = planted(100, seed=0)
    lines = [
        f"{campaign.name},{row},{texts['headline']},{campaign.impressions[row]:.0f},{campaign.clicks[row]:.0f}"
        for campaign in past
        for row, texts in enumerate(campaign.creatives)
    ]
    write_lines(tmp_path / "history.csv", lines)
    shown = run(
        *("tune", "--history", "history.csv", "--out", "tuned", "--encoder", str(TINY)),
        *("--epochs", "1", "--held-out", "0.3", "--json"),
    )
    assert shown.code == 0, shown.err
    assert shown.json["has_components"]
    notes, encoder = load_metadata(tmp_path / "tuned" / BESIDE), TextEncoder(tmp_path / "tuned")
    assert notes["weights_sha256"] == encoder.weights_sha256
    texts = sorted({creative["headline"] for each in past[:70] for creative in each.creatives})
    assert notes["texts"] == f"{len(texts)} that the encoder was tuned on"
    vectors = encoder.encode([*texts, "Free shoes"]).astype(float)
    centre = vectors[:-1].mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(vectors[:-1].T))  # an oracle that is no decomposition of the vectors
    # The unit: typical texts have contents of length 1, and the encoder's width, 24, is all kept.
    length = np.sqrt(((vectors[:-1] - centre) ** 2).sum(axis=1).mean())
    expected = np.abs((vectors[-1] - centre) @ axes[:, ::-1][:, :3]) / length  # the definite ones
    with Engine.open(tmp_path / "new.db", learn="manual", encoder=tmp_path / "tuned") as engine:
        engine.add_campaign("shoes")
        engine.add_creatives("shoes", [Creative("a", headline="Free shoes")])
        assert model_of(engine).record.settings["components"] == "shipped"
        content = model_of(engine).catalog.content[0]
    assert_allclose(np.abs(content[:3]), expected, rtol=1e-3)

    with Engine.open(tmp_path / "old.db", learn="manual", encoder=TINY) as engine:
        engine.add_campaign("shoes")
        engine.add_creatives("shoes", [Creative("a", headline="Free shoes")])
    swapped = run("swap-encoder", "tuned", "--database", "old.db")
    assert "components are made for this encoder" in swapped.out


def test_too_little_history_is_one_line(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "history.csv", 2)
    command = ("tune", "--history", str(tmp_path / "history.csv"), "--out", str(tmp_path / "tuned"))
    assert run(*command).error.startswith("of 2 campaigns, 2 have two creatives with different texts")
    assert run(*command, "--epochs", "0").error == "epochs 0: expected 1 or more"
    assert not (tmp_path / "tuned").exists()


def test_a_database_has_the_history_that_it_imported(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "history.csv", 12)
    run("import", "history.csv", "--database", "ads.db")
    ours, theirs = (
        past_campaigns(read_rows(*source)) for source in ((None, "ads.db"), (tmp_path / "history.csv", None))
    )
    assert [each.name for each in ours] == [each.name for each in theirs]  # week-10 is not before week-2
    for one, other in zip(ours, theirs, strict=True):
        assert one.creatives == other.creatives
        np.testing.assert_array_equal(one.impressions, other.impressions)
        np.testing.assert_array_equal(one.clicks, other.clicks)


def test_conversions_need_their_column(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "history.csv", 3)
    command = ("tune", "--history", str(tmp_path / "history.csv"), "--out", "tuned", "--conversions", "1")
    assert run(*command).error == (
        f"{tmp_path / 'history.csv'}: expected the columns campaign, creative, headline, impressions, "
        "clicks, conversions; missing: conversions"
    )
    assert run(*command, "--mask", "1.5").error == "mask 1.5: expected a share of at least 0 and below 1"


def test_where_a_part_is_not_known_conversions_are_not(tmp_path: Path) -> None:
    def rows(*conversions: int | None, clicks: int = 2) -> list[HistoryRow]:
        creative = Creative("a", headline="Free")
        return [
            HistoryRow(campaign="old", creative=creative, impressions=9, clicks=clicks, conversions=bought)
            for bought in conversions
        ]

    (known,), (partly,) = past_campaigns(rows(1, 0)), past_campaigns(rows(1, None))
    assert known.conversions is not None
    assert known.conversions.tolist() == [1, 0]
    assert partly.conversions is None
    assert past_campaigns([*rows(1), *rows(None, clicks=0)])[0].conversions is not None


def test_trials_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        Trial(number=0, settings={"learning_rate": 1e-4, "rank": 8}, gain=0.25, is_pruned=False),
        Trial(number=1, settings={"learning_rate": 2e-4, "rank": 4}, gain=0.125, is_pruned=True),
    ]
    counts = {"training": 1200, "judging": 500}
    print_search(Search(settings=TuningSettings(), best=0, trials=trials, campaigns=counts))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 trials, each trained on 1,200 campaigns and judged by 500 later ones")
    assert [line.split() for line in lines[3:5]] == [
        ["0", "0.0001", "8", "0.250", "taken"],
        ["1", "0.0002", "4", "0.125", "given", "up"],
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "stopped before anything was done"),
        (["out.unfinished"], "stopped; the same command goes on from out.unfinished\n"),
        (["out.unfinished", "out.search.db"], "goes on from out.unfinished and out.search.db\n"),
    ],
)
def test_ctrl_c_says_what_is_kept(files: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in files:
        Path(name).touch()
    with pytest.raises(KeyboardInterrupt), _told_how_to_go_on(Path("out")):
        raise KeyboardInterrupt
    assert said in capsys.readouterr().err


def test_clicks_come_from_one_place(run: Run) -> None:
    assert "give either --history or --database" in run("tune", "--out", "tuned").err
    both = run("tune", "--out", "tuned", "--history", "a.csv", "--database", "ads.db")
    assert "give either --history or --database" in both.err
    missing = run("tune", "--out", "tuned", "--database", "none.db").error
    assert missing.startswith("there is no creative-bandit database at")


def test_history_becomes_campaigns_in_order(tmp_path: Path) -> None:
    write(tmp_path / "history.csv", 2)
    first, second = past_campaigns(read_history(tmp_path / "history.csv"))
    assert (first.name, second.name) == ("week-0", "week-1")
    assert [texts["headline"] for texts in first.creatives] == [
        "Free returns, always ",
        "48 hour flash sale ",
    ]
    np.testing.assert_array_equal(second.clicks, [11, 14])

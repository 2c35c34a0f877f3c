import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bandit.learning.arm_summaries import N_CONTEXTS
from encoders import TextEncoder
from simulations.errors import SimulationError
from simulations.experiments.demo import (
    DATABASE,
    N_SEEDS,
    REPORT,
    DemoError,
    DemoExistsError,
    DemoResult,
    run_demo,
)
from simulations.experiments.demo_output import QUERIES
from simulations.experiments.demo_shop import CAMPAIGNS, draw_impressions, open_shop
from tests.paths import TINY

IMPRESSIONS = 1_000


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(TINY)


class Demo:
    """A demo that was run, and what it printed."""

    def __init__(self, folder: Path, encoder: TextEncoder) -> None:
        printed = io.StringIO()
        console = Console(file=printed, width=200, markup=False, highlight=False)
        self.result: DemoResult = run_demo(folder, impressions=IMPRESSIONS, console=console, encoder=encoder)
        self.printed = printed.getvalue()

    def fetch(self, sql: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.result.database)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder) -> Demo:
    return Demo(tmp_path_factory.mktemp("demo") / "new", encoder)


@pytest.mark.slow
def test_every_impression_is_a_learnt_decision(demo: Demo) -> None:
    rows = demo.fetch(
        "select campaign, count(*), count(click), sum(learnt_batch is not null) from decision_log "
        "group by campaign order by campaign"
    )
    assert rows == [(name, n, n, n) for name, n in zip(sorted(CAMPAIGNS), (333, 334, 333), strict=True)]
    assert demo.fetch("select count(*) from creatives") == [(60,)]


@pytest.mark.slow
def test_arms_are_those_of_the_database_with_their_truth(demo: Demo, encoder: TextEncoder) -> None:
    assert list(demo.result.arms) == list(CAMPAIGNS)
    for name, arms in demo.result.arms.items():
        counts = demo.fetch(
            f"select creative, impressions, clicks from arm_report where campaign = '{name}' order by 1"
        )
        reports = sorted((a.report.creative_id, a.report.impressions, a.report.clicks) for a in arms)
        assert reports == counts
        assert len(arms) == 20
    shop = open_shop(0, encoder)
    traffic = draw_impressions(shop, IMPRESSIONS, 0)
    truth = {arm.report.creative_id: arm.truth for arm in demo.result.arms["checkout"]}
    recent = traffic.rates[traffic.campaign == 2][-N_CONTEXTS:]
    for index, creative in enumerate(shop[2].view.creative_ids):
        assert truth[creative] == pytest.approx(recent[:, index].mean())


@pytest.mark.slow
def test_clicks_follow_the_true_rates(demo: Demo, encoder: TextEncoder) -> None:
    shop = open_shop(0, encoder)
    traffic = draw_impressions(shop, IMPRESSIONS, 0)
    rows = demo.fetch("select decision_id, campaign, creative, click from decision_log")
    for decision_id, campaign, creative, click in rows:
        i = int(str(decision_id).removeprefix("impression-"))
        one = shop[traffic.campaign[i]]
        assert campaign == one.name
        rate = one.view.true_rate(traffic.contexts[i], str(creative))
        assert click == int(traffic.uniforms[i] < rate)


@pytest.mark.slow
def test_scores_hold_all_policies_over_the_same_impressions(demo: Demo) -> None:
    scores = {row.policy: row for row in demo.result.scores}
    assert list(scores) == ["engine", "plain-thompson", "uniform", "engine in ads.db"]
    assert {row.impressions for row in scores.values()} == {960}
    assert scores["engine"].seeds == scores["plain-thompson"].seeds == N_SEEDS
    assert scores["engine in ads.db"].seeds == 1
    assert scores["uniform"].share_of_lift == 0
    best = {round(row.clicks + row.regret, 6) for row in list(scores.values())[:3]}
    assert len(best) == 1
    assert 5 < scores["uniform"].clicks < 100


@pytest.mark.slow
def test_page_holds_regret_traffic_and_intervals(demo: Demo) -> None:
    page = demo.result.report.read_text("utf-8")
    assert page.count("<svg") == 10
    for words in (
        "Clicks lost while learning",
        "Who got the impressions: engine, checkout",
        "engine in ads.db",
    ):
        assert words in page


@pytest.mark.slow
def test_printed_answers_are_those_of_the_database(demo: Demo) -> None:
    for question, sql in QUERIES:
        assert question in demo.printed
        assert sql in demo.printed
        first = demo.fetch(sql)[0]
        printed = [line.split()[:3] for line in demo.printed.splitlines()]
        assert [str(cell) for cell in first[:3]] in printed
    assert demo.fetch(QUERIES[2][1])[-1][1] == IMPRESSIONS // 4
    assert sorted(path.name for path in demo.result.database.parent.iterdir()) == [
        DATABASE,
        "report-figures",
        REPORT,
    ]


@pytest.mark.slow
def test_same_seed_decides_the_same(demo: Demo, tmp_path: Path, encoder: TextEncoder) -> None:
    again = Demo(tmp_path, encoder)
    sql = "select decision_id, creative, propensity, click from decision_log order by decision_id"
    assert again.fetch(sql) == demo.fetch(sql)


def test_a_database_that_is_there_is_not_touched(tmp_path: Path, encoder: TextEncoder) -> None:
    (tmp_path / DATABASE).write_bytes(b"precious")
    with pytest.raises(DemoExistsError, match="--overwrite") as caught:
        run_demo(tmp_path, console=Console(quiet=True), encoder=encoder)
    assert str(tmp_path / DATABASE) in str(caught.value)
    assert isinstance(caught.value, FileExistsError)
    assert isinstance(caught.value, SimulationError)
    assert (tmp_path / DATABASE).read_bytes() == b"precious"
    assert not (tmp_path / REPORT).exists()


def test_a_database_that_is_there_is_replaced_when_that_is_allowed(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (DATABASE, f"{DATABASE}-wal", REPORT):
        (tmp_path / name).write_bytes(b"old")

    class StoppedError(Exception):
        pass

    def stop(database: Path, *_: object) -> None:
        assert not list(database.parent.iterdir())
        raise StoppedError

    monkeypatch.setattr("simulations.experiments.demo._play", stop)
    with pytest.raises(StoppedError):
        run_demo(tmp_path, console=Console(quiet=True), encoder=encoder, overwrite=True)


def test_too_few_impressions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="at least 1,000 impressions, got 999"):
        run_demo(tmp_path, impressions=999, console=Console(quiet=True))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(DemoError, match="got the file") as caught:
        run_demo(tmp_path / "out", console=Console(quiet=True))
    assert str(tmp_path / "out") in str(caught.value)


def test_shop_is_a_function_of_its_seed(encoder: TextEncoder) -> None:
    shop, again, other = (open_shop(seed, encoder) for seed in (3, 3, 4))
    assert [one.ads for one in shop] == [one.ads for one in again]
    for one, same, different in zip(shop, again, other, strict=True):
        assert len(one.ads) == len(set(one.view.creative_ids)) == 20
        assert np.array_equal(one.world.appeal, same.world.appeal)
        assert not np.allclose(one.world.appeal, different.world.appeal)


def test_impressions_take_turns_and_carry_the_rates_of_their_campaign(encoder: TextEncoder) -> None:
    shop = open_shop(0, encoder)
    traffic = draw_impressions(shop, 31, seed=0)
    assert traffic.campaign.tolist() == [i % 3 for i in range(31)]
    for i in (0, 16, 30):
        expected = shop[i % 3].view.true_rates([traffic.contexts[i]])[0]
        assert traffic.rates[i] == pytest.approx(expected)
    assert ((traffic.uniforms >= 0) & (traffic.uniforms < 1)).all()

import csv
import dataclasses
import html.parser
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bandit import html_page
from bandit.errors import PageError
from bandit.html_page import Piece, Section, Table, settings_id, with_small_print
from simulations.calibration import LOGIT_EDGES, PROBABILITY_EDGES, Record
from simulations.reports.files import figures_of, write_csv, write_report
from simulations.reports.plot_style import svg
from simulations.reports.results import (
    ArmInterval,
    HorizonCurve,
    LiftCurve,
    RegretCurve,
    ResultError,
    TrafficShares,
)
from simulations.reports.sections import (
    archive_section,
    arms_section,
    belief_sections,
    horizon_section,
    lift_section,
    regret_section,
    shares_section,
)

write_html = partial(html_page.write_html, svg=svg)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    policy: str
    setting: str = "-"
    per_arm: int = 100
    tests: int = 2812
    clicks: float = 12345.6
    share_of_lift: float = 0.284
    standard_error: float = 0.0071


class Pair(NamedTuple):
    name: str
    value: object


class Outline(html.parser.HTMLParser):
    """Checks that tags close in order, and collects ids, words and addresses."""

    VOID = frozenset({"meta", "br", "html", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(attributes)

    def _note(self, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attributes if name == "id"]
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(path: Path) -> Outline:
    found = Outline()
    found.feed(path.read_text("utf-8"))
    assert found.open == []
    return found


def sections() -> list[Section]:
    times = np.arange(10, 1010, 10)
    regret = np.sqrt(times) * np.array([[1.0], [2.0]])
    ids = ("shoes-calm-1", "shoes-bold-1")
    falling = 1 / (1 + times / 100)
    traffic = TrafficShares("engine", times, ids, np.stack([1 - falling / 2, falling / 2], axis=1))
    arm = ArmInterval(
        creative_id="shoes-calm-1", impressions=1234, estimate=0.0212, low=0.015, high=0.03, truth=0.02
    )
    return [
        regret_section([RegretCurve("uniform", 3 * regret), RegretCurve("engine", regret)], times),
        shares_section(traffic),
        arms_section(
            "<Spring> & sale", [arm, dataclasses.replace(arm, creative_id="shoes-bold-1", truth=None)]
        ),
        archive_section([Row(policy="engine"), Row(policy="uniform", share_of_lift=0.0)]),
    ]


def more_sections() -> list[Section]:
    forecasts = np.zeros((len(LOGIT_EDGES) + 1, 3))
    forecasts[20:22] = [[300, 6, 9], [100, 4, 0]]
    record = Record(forecasts, np.arange(len(PROBABILITY_EDGES) + 1.0))
    share = np.array([0.1, 0.5, 0.7])
    return [
        lift_section([LiftCurve("engine", share, share / 9, 4)], np.array([10, 20, 30])),
        horizon_section(
            [HorizonCurve("engine", np.array([[5.0, 9.0], [7.0, 11.0]]))], np.array([1_000, 4_000])
        ),
        *belief_sections("engine", record),
    ]


def test_csv_reads_back_in_full(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.csv"
    write_csv(
        [Row(policy="engine", share_of_lift=0.1 + 0.2), Row(policy='a "b", c')], path, names={"per_arm": "T"}
    )
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["policy", "setting", "T", "tests", "clicks", "share_of_lift", "standard_error"]
    assert float(first["share_of_lift"]) == 0.1 + 0.2
    assert first["T"] == "100"
    assert second["policy"] == 'a "b", c'


def test_csv_of_numpy_numbers_and_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    values = [np.float64(0.5), np.int64(3), None, float("nan"), True]
    write_csv([Pair("x", value) for value in values], path)
    assert path.read_bytes() == b"name,value\nx,0.5\nx,3\nx,\nx,\nx,True\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row to write to out.csv, got none"),
        ([Pair("a", 1), Row(policy="b")], r"rows of one type in out.csv, got \['Pair', 'Row'\]"),
        ([("a", 1)], "expected a NamedTuple or a dataclass as a row, got tuple"),
        ([Pair("a", np.zeros(2))], "one value per cell, got ndarray in value"),
    ],
)
def test_csv_names_what_is_wrong_and_leaves_no_file(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        write_csv(rows, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_page_is_well_formed_and_fetches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_html(path, "Spring & <sale>", sections(), lead="It's won.", settings={"seeds": 12})
    page, text = outline(path), path.read_text("utf-8")
    assert len(page.ids) == len(set(page.ids)), "ids are unique over all pictures"
    assert page.addresses
    assert all(address.startswith("#") and address[1:] in page.ids for address in page.addresses)
    assert not re.search(r"<script|<link|@import|url\((?!#)", text)
    assert "<sale>" not in text
    assert "<Spring>" not in text
    assert text.count("<svg") == 4
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_page_says_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(
        path,
        "Title",
        sections(),
        lead="Lead.",
        settings={"is endless": False, "base CTR": 0.015, "n": (1000, 2)},
    )
    words = [word.replace("\u00a0", " ") for word in outline(path).words]
    for word in (
        "Title",
        "Lead.",
        "2.12 %",
        "1,234",
        "28.4 %",
        "± 1.4 %",
        "12,346",
        "95.45 %",
        "is endless",
        "no",
    ):
        assert word in words, word
    assert {"0.015", "1,000 / 2"} <= set(words)


def test_table_of_regret_is_ranked() -> None:
    table = sections()[0].table
    assert table is not None
    # The regret of the two seeds is 1 and 2 times √1000 = 31.6: mean 47.4, standard error 15.8, and Student's
    # t of one degree of freedom is 12.7.
    assert table.rows[0] == ("engine", "47", "± 201", "2")
    assert table.rows[1] == ("uniform", "142", "± 603", "2")


def test_page_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_html(tmp_path / name, "Title", sections(), settings={"seeds": 12})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_report_has_its_pictures_as_files_and_each_names_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    settings = {"seeds": 12, "kappa": 0.5}
    stale = figures_of(path) / "old.png"
    stale.parent.mkdir()
    stale.touch()
    write_report(path, "Title", [*sections(), *more_sections()], lead="Lead.", settings=settings)
    names = {picture.stem for picture in figures_of(path).iterdir()}
    assert names == {
        *("regret", "traffic", "creatives-_Spring_ & sale", "lift", "horizons", "calibration"),
        "probabilities",
    }
    named = f"settings {settings_id(settings)}"
    assert outline(path).words.count(named) == 8
    for picture in figures_of(path).iterdir():
        assert named.encode() in picture.read_bytes(), picture.name
    assert path.stat().st_size < 400_000


def test_other_settings_have_another_id() -> None:
    ids = {settings_id({"seeds": seeds, "batch": batch}) for seeds in (8, 9) for batch in (1, 2)}
    assert len(ids) == 4
    assert settings_id({"a": 1, "b": 2}) == settings_id({"b": 2, "a": 1})


def test_settings_stand_below_their_policy(tmp_path: Path) -> None:
    table = with_small_print(("policy", "setting", "clicks"), [("engine", "k=2", "1"), ("uniform", "-", "2")])
    write_html(tmp_path / "t.html", "T", [Section(heading="H", caption="C", table=table)])
    text = (tmp_path / "t.html").read_text("utf-8")
    assert (
        "<tr class=engine><td class=words>engine<small>k=2</small></td><td class=number>1</td></tr>" in text
    )
    assert "<td class=words>uniform</td><td class=number>2</td>" in text


def test_calibration_tells_what_came_of_what_was_expected() -> None:
    section = next(one for one in more_sections() if one.name == "calibration")
    assert section.table is not None
    # Wilson's intervals of 9 of 300 and 0 of 100 by R's prop.test without correction.
    assert section.table.rows == (
        ("300", "2.00 %", "3.00 %", "1.59 %", "5.60 %"),
        ("100", "4.00 %", "0.00 %", "0.00 %", "3.70 %"),
    )


def test_page_of_long_runs_stays_small(tmp_path: Path) -> None:
    times = np.arange(1, 100_001)
    noise = np.random.default_rng(0).normal(0, 1, (3, times.size)).cumsum(axis=1)
    curves = [RegretCurve(f"policy-{i}", noise + i * times) for i in range(7)]
    write_html(tmp_path / "long.html", "Long", [regret_section(curves, times)])
    assert (tmp_path / "long.html").stat().st_size < 200_000


def test_section_without_picture_shows_its_table_at_once(tmp_path: Path) -> None:
    table = Table(header=("policy", "clicks"), rows=(("engine", "1,200"), ("greedy", "–")))
    write_html(tmp_path / "t.html", "T", [Section(heading="H", caption="C", table=table)])
    text = (tmp_path / "t.html").read_text("utf-8")
    assert "<details>" not in text
    assert "<tr class=engine><td class=words>engine</td><td class=number>1,200</td></tr>" in text


def test_shaded_texts_say_by_line_and_number_what_their_colour_says(tmp_path: Path) -> None:
    pieces = (Piece("Free", 1.0, "+2.1 %"), Piece(" <b> "), Piece("sale", -0.25, "−0.5 %"))
    section = Section(heading="H", caption="C", texts=(("headline", pieces),))
    write_html(tmp_path / "t.html", "T", [section])
    text = (tmp_path / "t.html").read_text("utf-8")
    assert "<mark class=raises style='--of:100%'>Free<small>+2.1\u00a0%</small></mark> &lt;b&gt; " in text
    assert "<mark class=lowers style='--of:25%'>sale<small>−0.5\u00a0%</small></mark></p>" in text


def test_empty_table_keeps_its_header(tmp_path: Path) -> None:
    table = Table(header=("policy", "clicks"), rows=())
    write_html(tmp_path / "t.html", "T", [Section(heading="H", caption="C", table=table)])
    assert {"policy", "clicks"} <= set(outline(tmp_path / "t.html").words)


def test_page_names_what_is_wrong_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    crooked = Table(header=("a", "b"), rows=(("1", "2"), ("3",)))
    with pytest.raises(PageError, match=r"a title for report\.html, got '  '"):
        write_html(path, "  ", sections())
    with pytest.raises(PageError, match=r"at least one section for report\.html, got none"):
        write_html(path, "T", [])
    with pytest.raises(PageError, match="way to draw the pictures of"):
        html_page.write_html(path, "T", sections())
    with pytest.raises(PageError, match="expected 2 cells in row 2 of the table under 'Odd', got 1"):
        write_html(path, "T", [Section(heading="Odd", caption="C", table=crooked)])
    assert not path.exists()

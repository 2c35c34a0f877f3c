import csv
import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

from bandit.features.content_pca import Components
from bandit.features.design import DIM_WITHOUT_CONTEXT, N_CONTENT, PriorScales
from simulations.errors import ArchiveError, SimulationError
from simulations.worlds.archive import PastTest, archive_prior, problems, read_archive, split

HEADER = "test_id,week,headline,impressions,clicks"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "tests.csv"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def a_test(test_id: str, *headlines: str, week: int = 201501) -> PastTest:
    n = len(headlines)
    return PastTest(test_id, week, headlines, np.full(n, 1000.0), 10.0 * np.arange(1, n + 1))


def test_rows_of_one_headline_are_pooled_and_tests_ordered(archive: Path) -> None:
    write(
        archive,
        "b,201502,One,100,1",
        "b,201501,Two,200,0",
        "a,201501,One,300,3",
        "b,201503,One,50,2",
        "c,201446,Three,10,10",
    )
    tests = read_archive(archive)
    # By the first week of a test, then by its id: b also has a row of week 201501.
    assert [(test.test_id, test.week) for test in tests] == [("c", 201446), ("a", 201501), ("b", 201501)]
    assert tests[2].headlines == ("One", "Two")
    np.testing.assert_array_equal(tests[2].impressions, [150, 200])
    np.testing.assert_array_equal(tests[2].clicks, [3, 0])
    # A headline without clicks counts as a quarter of one.
    np.testing.assert_allclose(tests[2].truth, [3 / 150, 0.25 / 200])


def test_zipped_files_other_columns_and_spreadsheets_marks_are_read(tmp_path: Path) -> None:
    text = 'lede,clicks,headline,week,test_id,impressions\n"x, y",2,"Yes, we ""can""\nnow",201501,t,100\n'
    plain, zipped, marked = (tmp_path / name for name in ("a.csv", "b.csv.gz", "c.csv"))
    plain.write_text(text, encoding="utf-8")
    zipped.write_bytes(gzip.compress(text.encode()))
    marked.write_text(HEADER + '\nt,201501,"Yes, we ""can""\nnow",100,2\n', encoding="utf-8-sig")
    for path in (plain, zipped, marked):
        (test,) = read_archive(path)
        assert test.headlines == ('Yes, we "can"\nnow',)
        assert (test.impressions[0], test.clicks[0]) == (100, 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("t,201501,A,100,101", "101 clicks on 100 impressions"),
        ("t,201501,A,0,0", "0 impressions"),
        ("t,201501,A,-5,0", "got impressions '-5'"),
        ("t,201501,A,1e3,2.5", "got impressions '1e3', clicks '2.5'"),
        ("t,soon,A,100,1", "got week 'soon'"),
        ("t,201501,A,,1", "got impressions ''"),
        ("t,201501,A,١٠٠,1", "got impressions '١٠٠'"),
        ("t,201501,,100,1", "the headline is empty"),
        ("t,201501,A,100", "fewer columns than the header"),
        ("t,201501,Yes, we can,100,1", "more columns than the header"),
    ],
)
def test_a_bad_line_is_named_with_its_number(archive: Path, line: str, message: str) -> None:
    write(archive, "t,201501,Fine,100,1", line, "t,201501,Fine too,100,1")
    with pytest.raises(ArchiveError) as caught:
        read_archive(archive)
    assert f"{archive}: 1 bad lines" in str(caught.value)
    assert "line 3: " in str(caught.value)
    assert message in str(caught.value)
    assert isinstance(caught.value, SimulationError)
    assert isinstance(caught.value, ValueError)


def test_all_bad_lines_are_counted_and_the_first_twenty_named(archive: Path) -> None:
    write(archive, "t,201501,Fine,100,1", *[f"t,201501,A,10,{11 + i}" for i in range(23)])
    with pytest.raises(ArchiveError) as caught:
        read_archive(archive)
    said = str(caught.value)
    assert "23 bad lines" in said
    assert "line 3: 11 clicks" in said
    assert "line 22: 30 clicks" in said
    assert "31 clicks" not in said
    assert said.endswith("and 3 more")


def test_missing_columns_are_named(archive: Path) -> None:
    write(archive, "t,A,100", header="test_id,headline,impressions")
    with pytest.raises(ArchiveError, match="missing: week, clicks"):
        read_archive(archive)
    archive.write_bytes(b"")
    with pytest.raises(ArchiveError, match="missing: test_id, week, headline, impressions, clicks"):
        read_archive(archive)


def test_files_that_are_no_csv_are_refused_by_name(tmp_path: Path) -> None:
    zipped = gzip.compress((HEADER + "\n" + "t,201501,A,100,1\n" * 500).encode())
    damaged = {
        "latin.csv": HEADER.encode() + b"\nt,201501,caf\xe9,100,1\n",
        "plain.csv.gz": HEADER.encode(),
        "short.csv.gz": zipped[:-20],
        "flipped.csv.gz": zipped[:20] + bytes(byte ^ 255 for byte in zipped[20:40]) + zipped[40:],
        "long.csv": (HEADER + "\nt,201501," + "x" * (csv.field_size_limit() + 1) + ",100,1\n").encode(),
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArchiveError, match=f"{name}: expected a CSV in UTF-8"):
            read_archive(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_archive(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("week", "is_faulty"), [(201325, False), (201326, True), (201402, True), (201403, False)]
)
def test_weeks_of_faulty_randomisation(week: int, is_faulty: bool) -> None:
    assert a_test("t", "A", week=week).is_faulty == is_faulty


def some_tests() -> list[PastTest]:
    """Return 20 tests: history is the first 4 for tuning, the first 8 for scoring."""
    tests = [a_test(f"t{i:02d}", f"{i}a", f"{i}b", f"{i}c") for i in range(20)]
    tests[1] = a_test("t01", "only one")
    tests[5] = a_test("t05", "5a", "1b", "only one")  # one of three is known from the tuning history
    tests[10] = a_test("t10", "alone")
    tests[12] = a_test("t12", "12a", "5a")  # one of two is known from the scoring history
    tests[14] = a_test("t14", "14a", "2a", "14c")
    return tests


def test_tuning_plays_the_second_fifth() -> None:
    history, played = split(some_tests(), "tune")
    assert [test.test_id for test in history] == ["t00", "t01", "t02", "t03"]
    assert [test.test_id for test in played] == ["t04", "t05", "t06", "t07"]
    # 1b is of no test: t01 has one headline only.
    assert played[1].headlines == ("5a", "1b")


def test_scoring_plays_the_last_three_fifths_without_known_headlines() -> None:
    history, played = split(some_tests(), "score")
    assert [test.test_id for test in history] == [f"t{i:02d}" for i in range(8)]
    assert "t10" not in {test.test_id for test in played}, "one headline is no test"
    assert "t12" not in {test.test_id for test in played}, "one headline is left"
    assert len(played) == 10
    left = next(test for test in played if test.test_id == "t14")
    assert left.headlines == ("14a", "14c")
    np.testing.assert_array_equal(left.clicks, [10, 30])
    np.testing.assert_array_equal(left.impressions, [1000, 1000])
    seen = {headline for test in history for headline in test.headlines}
    assert not seen & {headline for test in played for headline in test.headlines}


@pytest.fixture
def vectors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    headlines = sorted({headline for test in some_tests() for headline in test.headlines})
    rows = random.normal(size=(len(headlines), 70)).astype(np.float32)
    return dict(zip(headlines, rows / np.linalg.norm(rows, axis=1, keepdims=True), strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_a_played_test_starts_as_a_new_campaign_of_new_arms(vectors: dict[str, np.ndarray]) -> None:
    components = Components(np.zeros(70, np.float32), np.eye(70, N_CONTENT, dtype=np.float32))
    history, played = split(some_tests(), "score")
    scales = PriorScales()
    state = archive_prior(history[:4], vectors, components, scales)
    group = problems(played[:3], state, vectors, components, 4, 0.02)

    # What the weights know is all that a new campaign's arms share with the past.
    inverse = np.linalg.inv(np.asarray(state.factor))
    covariance = inverse.T @ inverse
    for i, test in enumerate(played[:3]):
        k = len(test.headlines)
        content = np.stack([vectors[headline][:N_CONTENT] for headline in test.headlines]).astype(float)
        phi = np.hstack([np.ones((k, 1)), content, np.tile(content.mean(axis=0), (k, 1))])
        assert phi.shape == (k, DIM_WITHOUT_CONTEXT)
        learnt = state.prior
        expected = phi @ covariance @ phi.T + learnt.campaign_scale**2 + learnt.arm_scale**2 * np.eye(k)
        np.testing.assert_allclose(group.prior.covariance[i, :k, :k], expected, atol=1e-6)
        np.testing.assert_allclose(group.prior.mean[i, :k], phi @ np.asarray(state.weights), atol=1e-6)
        np.testing.assert_array_equal(group.truth[i], np.pad(test.truth, (0, 4 - k)))
        np.testing.assert_array_equal(group.eligible[i], np.arange(4) < k)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(group))

    # The history's rate is 2 %: 10 and 20 and 30 clicks on 1,000.
    assert float(jax.nn.sigmoid(group.prior.mean[0, :3]).mean()) == pytest.approx(0.02, abs=0.006)


@pytest.mark.real_data
def test_the_real_archive(data_dir: Path) -> None:
    path = data_dir / "upworthy" / "packages.csv.gz"
    tests = read_archive(path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13_810
    assert len(tests) == 2_979
    for name in ("impressions", "clicks"):
        assert sum(getattr(test, name).sum() for test in tests) == sum(int(row[name]) for row in rows)
    assert [test.week for test in tests] == sorted(test.week for test in tests)
    for part, n_history, n_played in (("tune", 596, 302), ("score", 1_192, 931)):
        history, played = split(tests, part)
        assert len(history) == n_history
        seen = {headline for test in history for headline in test.headlines}
        assert not seen & {headline for test in played for headline in test.headlines}
        assert min(len(test.headlines) for test in played) >= 2
        assert len(played) == n_played

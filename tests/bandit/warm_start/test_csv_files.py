"""History files: every bad line is named, and nothing of a bad file is used."""

import gzip
from pathlib import Path

import pytest

from bandit import Creative, HistoryRow
from bandit.errors import HistoryError
from bandit.warm_start.csv_files import read_history
from bandit.warm_start.importer import check_history, new_creative
from storage import ContextRecord

HEADER = "campaign,creative,headline,body,impressions,clicks\n"


def read(folder: Path, text: str | bytes) -> list[HistoryRow]:
    path = folder / "history.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_history(path)


def test_rows(tmp_path: Path) -> None:
    text = HEADER + 'old,a,"Free, always",,100,3\nold,b,Sale,"two\nlines",0,0\n'
    assert read(tmp_path, b"\xef\xbb\xbf" + text.encode()) == [
        HistoryRow(
            campaign="old", creative=Creative("a", headline="Free, always"), impressions=100, clicks=3
        ),
        HistoryRow(
            campaign="old",
            creative=Creative("b", headline="Sale", body="two\nlines"),
            impressions=0,
            clicks=0,
        ),
    ]


def test_a_gzipped_file_is_read_by_its_name(tmp_path: Path) -> None:
    text = HEADER + "old,a,Free,,100,3\n"
    packed = tmp_path / "history.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_history(packed) == read(tmp_path, text)
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(HistoryError, match=r"history\.csv\.gz: expected a CSV in UTF-8 \(gzipped if named"):
        read_history(packed)


def test_conversions_are_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("campaign,creative,headline,impressions,clicks,conversions\nold,a,Free,100,3,2\n")
    assert [row.conversions for row in read_history(path, with_conversions=True)] == [2]
    assert [row.conversions for row in read_history(path)] == [None]
    path.write_text(
        "campaign,creative,headline,impressions,clicks,conversions\n"
        "old,a,Free,100,3,4\nold,b,Sale,100,3,\nold,c,New,100,3,-1\n"
    )
    with pytest.raises(
        HistoryError,
        match=r"(?s)3 problems.*line 2: 4 conversions on 3 clicks.*line 3: .* ''.*line 4: -1 conversions",
    ):
        read_history(path, with_conversions=True)
    assert len(read_history(path)) == 3  # an import does not ask


def test_conversions_of_a_log_are_those_of_clicks(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = ["decision_id,campaign,creative,context,click,conversions,headline"]
    # The second had two; the third was bought without a click.
    for number, (click, bought) in enumerate([("1", "0"), ("1", "2"), ("0", "1"), ("", "0"), ("0", "")]):
        lines.append(f"d{number},old,a,{{}},{click},{bought},Free")
    path.write_text("\n".join(lines))
    (row,) = read_history(path, with_conversions=True)
    assert (row.impressions, row.clicks, row.conversions) == (4, 2, 1)
    path.write_text("\n".join([*lines, "d9,old,a,{},1,some,Free"]))
    with pytest.raises(HistoryError, match="decision 'd9': expected conversions to be 0 or more, got 'some'"):
        read_history(path, with_conversions=True)


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    lines = [
        "old,a,Fine,,10,1",
        "old,b,Negative,,-1,0",
        "old,c,More,,3,4",
        "old,d,Words,,many,1.5",
        "old,e,,,10,1",
        "old,,No id,,10,1",
        ",f,No campaign,,10,1",
        "old,g,Short",
        f"old,h,{'x' * 10_001},,10,1",
    ]
    with pytest.raises(HistoryError) as raised:
        read(tmp_path, HEADER + "\n".join(lines) + "\n")
    problems = str(raised.value).splitlines()
    assert problems[0].endswith("history.csv: 8 problems; nothing was imported")
    assert [problem.strip().split(": ")[0] for problem in problems[1:]] == [f"line {n}" for n in range(3, 11)]
    for line, expected in (
        (3, "negative counts: -1 impressions, 0 clicks"),
        (4, "4 clicks on 3 impressions"),
        (5, "expected whole numbers, got impressions 'many', clicks '1.5'"),
        (6, "creative 'e': all texts are empty"),
        (7, "campaign and creative must not be empty"),
        (8, "campaign and creative must not be empty"),
        (9, "fewer columns than the header"),
        (10, "headline has 10,001 characters"),
    ):
        assert expected in problems[line - 2]


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"25 problems(?s:.*)and 5 more$"):
        read(tmp_path, HEADER + "old,a,x,,1,2\n" * 25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("campaign,creative,clicks\nold,a,1\n", "missing: headline, impressions"),
        ("", "missing: campaign, creative, headline, impressions, clicks"),
        (b"\xff\xfe\x00bad", "expected a CSV in UTF-8"),
    ],
)
def test_what_is_no_history_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        read(tmp_path, text)


def test_contexts(tmp_path: Path) -> None:
    text = "campaign,creative,headline,impressions,clicks,context\n"
    text += 'old,a,x,5,1,"{""device"": ""mobile"", ""age"": 31}"\nold,a,x,7,0,\nold,a,x,3,0,{}\n'
    assert [(row.context, row.impressions) for row in read(tmp_path, text)] == [
        ({"device": "mobile", "age": 31}, 5),
        ({}, 7),
        ({}, 3),
    ]
    bad = (
        text
        + 'old,a,x,1,0,mobile\nold,a,x,1,0,[1]\nold,a,x,1,0,"{""tags"": [1]}"\nold,a,x,1,0,"{""n"": NaN}"\n'
    )
    with pytest.raises(HistoryError) as raised:
        read(tmp_path, bad)
    assert str(raised.value).splitlines()[1:] == [
        "  line 5: expected context to be a JSON object, got 'mobile'",
        "  line 6: expected context to be a JSON object, got '[1]'",
        "  line 7: context field 'tags': expected a string, a number or a boolean, got list [1]",
        "  line 8: context field 'n': expected a finite number, got nan",
    ]


LOG = "decision_id,campaign,creative,context,propensity,click,headline,body\n"


def test_a_decision_log(tmp_path: Path) -> None:
    lines = [
        'd1,old,a,"{""device"":""mobile""}",0.5,1,x,',
        'd2,old,a,"{""device"":""mobile""}",0.5,0,x,',
        "d3,old,a,{},0.5,0,x,",
        "d4,old,a,{},0.5,,x,",
        "d5,old,b,{},0.5,,y,z",
    ]
    rows = read(tmp_path, LOG + "\n".join(lines))
    assert [(row.creative.id, row.context, row.impressions, row.clicks) for row in rows] == [
        ("a", {"device": "mobile"}, 2, 1),
        ("a", {}, 1, 0),
    ]


def test_bad_decisions_are_named(tmp_path: Path) -> None:
    lines = ["d1,old,a,{},0.5,1,x,", "d1,old,a,{},0.5,1,x,", "d2,old,a,{},0.5,yes,x,", ",old,a,{},0.5,0,x,"]
    with pytest.raises(HistoryError) as raised:
        read(tmp_path, LOG + "\n".join(lines))
    assert str(raised.value).splitlines()[1:] == [
        "  line 3: expected each decision once, with its id; got 'd1'",
        "  line 4: decision 'd2': expected click to be 0, 1 or empty, got 'yes'",
        "  line 5: expected each decision once, with its id; got ''",
    ]
    with pytest.raises(
        HistoryError, match=r"expected the columns decision_id, .*; missing: context, headline"
    ):
        read(tmp_path, "decision_id,campaign,creative,click\n")


def test_a_field_keeps_its_kind() -> None:
    creative = Creative("a", headline="x")
    rows = [
        HistoryRow(campaign="old", creative=creative, impressions=1, clicks=0, context=context)
        for context in ({"device": "mobile", "age": 31}, {"age": "old"}, {"device": 7})
    ]
    known = ContextRecord(fields={"device": "string"}, slots=(), version=0)
    with pytest.raises(HistoryError) as raised:
        check_history(rows, schema=known)
    problems = str(raised.value).splitlines()[1:]
    assert problems[0].startswith(
        "  row 2: creative 'a' of campaign 'old': context field 'age': expected a number"
    )
    assert problems[1].startswith(
        "  row 3: creative 'a' of campaign 'old': context field 'device': expected a string"
    )
    assert known.fields == {"device": "string"}


def test_a_creative_has_one_content() -> None:
    rows = [
        HistoryRow(campaign=name, creative=Creative("a", headline=text), impressions=1, clicks=0)
        for name, text in (("old", "x"), ("new", "y"), ("old", "z"), ("", "x"))
    ]
    with pytest.raises(HistoryError) as raised:
        check_history(rows)
    assert str(raised.value).splitlines()[1:] == [
        "  row 3: creative 'a' of campaign 'old' has other texts than before",
        "  row 4: the campaign is empty",
    ]


def test_the_hash_tells_contents_apart() -> None:
    one, same = (new_creative(Creative(name, headline="x", body="y")) for name in ("a", "b"))
    other = new_creative(Creative("a", headline="y", body="x"))
    assert one.content_hash == same.content_hash != other.content_hash
    assert one.content == {"headline": "x", "body": "y"}

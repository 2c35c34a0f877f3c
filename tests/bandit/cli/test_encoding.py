"""`encode`: a file's texts become vectors, in a file or in a database."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from encoders import FileCache, TextEncoder, encode_cached
from tests.bandit.cli.conftest import Run
from tests.storage.sql import fetch

CSV = (
    "creative,headline,body,note\na,Free returns,,x\nb,Flash sale,Free returns,\nc,Flash sale,Only today,y\n"
)


@pytest.fixture
def catalogue(run: Run) -> Path:
    path = Path("catalogue.csv")
    path.write_text(CSV)
    return path


def test_into_a_file(run: Run, catalogue: Path) -> None:
    told = run("encode", str(catalogue), "--cache", "vectors.npz", "--json").json
    assert (told["n_texts"], told["n_encoded"]) == (3, 3)
    assert told["texts_per_s"] > 0
    assert run("encode", str(catalogue), "--cache", "vectors.npz").out.startswith(
        "3 texts, 0 of them encoded now in "
    )
    encoder = TextEncoder()
    kept = FileCache("vectors.npz")
    texts = ["Only today", "Free returns", "Flash sale"]
    np.testing.assert_allclose(encode_cached(encoder, texts, kept), encoder.encode(texts), atol=1e-6)


def test_into_a_database(run: Run, catalogue: Path) -> None:
    run("campaign", "add", "spring", "--horizon", "1000")
    assert "3 texts, 3 of them encoded" in run("encode", str(catalogue), "--database", "ads.db").out
    assert fetch("sqlite:///ads.db", "SELECT count(*) FROM embeddings") == [(3,)]
    run("creative", "add", "spring", "b", "--headline", "Flash sale", "--body", "Free returns")
    assert fetch("sqlite:///ads.db", "SELECT count(*) FROM embeddings") == [(3,)]


def test_columns_and_compressed_files(run: Run) -> None:
    with gzip.open("catalogue.csv.gz", "wt") as file:
        file.write(CSV)
    options = ("--column", "note", "--column", "headline", "--cache", "vectors.npz", "--json")
    assert run("encode", "catalogue.csv.gz", *options).json["n_texts"] == 4


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (CSV, (), r"give either --cache or --database"),
        (CSV, ("--cache", "c.npz", "--database", "ads.db"), r"give either --cache or --database"),
        (CSV, ("--cache", "c.npz", "--column", "title"), r"expected the columns title, got creative, head"),
        ("a,b\n1,2\n", ("--cache", "c.npz"), r"expected the columns headline, got a, b; .* --column"),
        ("headline\n", ("--cache", "c.npz"), r"expected texts in headline, found none"),
        (CSV, ("--database", "nowhere.db"), r"there is no creative-bandit database at .*nowhere\.db"),
        (CSV, ("--cache", "c.npz", "--encoder", "nowhere/none"), r"nowhere/none"),
    ],
)
def test_bad_input(run: Run, content: str, options: tuple[str, ...], message: str) -> None:
    Path("texts.csv").write_text(content)
    refused = run("encode", "texts.csv", *options)
    assert refused.code == 2
    assert not Path("c.npz").exists()
    assert re.search(message, refused.err), refused.err


def test_not_a_csv(run: Run) -> None:
    Path("texts.csv").write_bytes(b"headline\n\xff\xfe\n")
    assert "texts.csv: expected a CSV in UTF-8" in run("encode", "texts.csv", "--cache", "c.npz").err
    Path("texts.csv.gz").write_bytes(b"headline")
    assert "texts.csv.gz: expected a CSV in UTF-8" in run("encode", "texts.csv.gz", "--cache", "c.npz").err
    assert "none.csv: no such file" in run("encode", "none.csv", "--cache", "c.npz").err

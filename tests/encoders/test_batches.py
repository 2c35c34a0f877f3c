import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.batches import BATCH_TOKENS, WIDTHS, pad, plan_batches, windows


@given(st.lists(st.integers(1, 256)), st.sampled_from([256, 300, 512]))
def test_each_text_is_in_one_batch_that_holds_it(n_tokens: list[int], max_tokens: int) -> None:
    batches = plan_batches(n_tokens, max_tokens)
    rows = [int(row) for batch in batches for row in batch.rows]
    assert sorted(rows) == list(range(len(n_tokens)))
    for batch in batches:
        assert max(n_tokens[row] for row in batch.rows) <= batch.width
        assert len(batch.rows) <= batch.n_rows <= BATCH_TOKENS // batch.width
        assert batch.width in {*WIDTHS, max_tokens}


def test_headlines_fill_their_batches() -> None:
    lengths = np.random.default_rng(0).integers(10, 32, size=2000)
    batches = plan_batches(lengths.tolist(), 256)
    assert lengths.sum() / sum(batch.n_rows * batch.width for batch in batches) > 0.8
    # Every further shape is a program to compile.
    assert len({(batch.n_rows, batch.width) for batch in batches}) <= 6


@pytest.mark.parametrize(("n_texts", "n_rows"), [(1, 8), (8, 8), (9, 32), (33, 128), (128, 128)])
def test_few_texts_get_few_rows(n_texts: int, n_rows: int) -> None:
    (batch,) = plan_batches([3] * n_texts, 512)
    assert (batch.n_rows, batch.width) == (n_rows, 16)


def test_a_model_with_few_positions_is_not_overrun() -> None:
    assert [batch.width for batch in plan_batches([12, 2], 12)] == [12]


def test_padding() -> None:
    tokens = [[2, 9, 3], [2, 3], [2, 8, 7, 3]]
    (batch,) = plan_batches([3, 2, 4], 512)
    ids, n_tokens = pad(tokens, batch)
    assert ids.shape == (8, 16)
    assert n_tokens.tolist() == [4, 3, 2, 1, 1, 1, 1, 1]
    assert [ids[row, : n_tokens[row]].tolist() for row in range(3)] == [tokens[2], tokens[0], tokens[1]]
    assert ids.sum() == sum(map(sum, tokens))


def test_windows() -> None:
    assert [(part.start, part.stop) for part in windows(5, 2)] == [(0, 2), (2, 4), (4, 5)]
    assert list(windows(0, 2)) == []

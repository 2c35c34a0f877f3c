"""Group texts of like length into a few fixed shapes: few programs to compile, little padding to compute."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

WIDTHS = (16, 20, 24, 28, 32, 48, 64, 128, 256, 512)
"""Tokens to which a batch is padded: narrow steps where headlines lie, wide ones above."""

BATCH_TOKENS = 2048
"""Positions of a full batch: large enough for fast matrix products on a CPU, small enough for its caches."""

_FEW_ROWS = (8, 32)


class Batch(NamedTuple):
    """Hold which texts are computed together, and in what shape.

    Args:
        rows: Positions of the texts in the list that was given.
        n_rows: Texts that the batch is padded to.
        width: Tokens that each text is padded to.
    """

    rows: Int[np.ndarray, "texts"]
    n_rows: int
    width: int


def plan_batches(n_tokens: Sequence[int], max_tokens: int) -> list[Batch]:
    """Group texts by length.

    Longest first, so that only the last batch, of the shortest texts, is not full.

    Args:
        n_tokens: Tokens of each text, 1 to `max_tokens`.
        max_tokens: Longest text that the model takes.

    Returns:
        Batches in which each text is once.

    Example:
        >>> [(batch.rows.tolist(), batch.n_rows, batch.width) for batch in plan_batches([3, 400, 9], 512)]
        [([1, 2, 0], 4, 512)]
    """
    widths = [width for width in WIDTHS if width < max_tokens] + [max_tokens]
    order = np.argsort(n_tokens, kind="stable")[::-1]
    batches, start = [], 0
    while start < len(order):
        width = next(width for width in widths if width >= n_tokens[order[start]])
        n_full = max(1, BATCH_TOKENS // width)
        rows = order[start : start + n_full]
        n_rows = next((few for few in _FEW_ROWS if len(rows) <= few < n_full), n_full)
        batches.append(Batch(rows, n_rows, width))
        start += n_full
    return batches


def pad(
    tokens: Sequence[Sequence[int]], batch: Batch
) -> tuple[Int[np.ndarray, "rows width"], Int[np.ndarray, "rows"]]:
    """Lay the texts of a batch out as arrays.

    Args:
        tokens: Token ids of every text.
        batch: Which of them, and the shape.

    Returns:
        Ids `int32[rows, width]`, and each row's number of tokens `int32[rows]`. Rows without a text have one
        token, id 0, so that no mean is over nothing.
    """
    ids = np.zeros((batch.n_rows, batch.width), np.int32)
    n_tokens = np.ones(batch.n_rows, np.int32)
    for row, text in enumerate(batch.rows):
        n_tokens[row] = len(tokens[text])
        ids[row, : n_tokens[row]] = tokens[text]
    return ids, n_tokens


def windows(n_texts: int, size: int) -> Iterator[slice]:
    """Cut a range into windows.

    Args:
        n_texts: Length of the range.
        size: Length of each window but the last.

    Yields:
        The windows, in order.
    """
    for start in range(0, n_texts, size):
        yield slice(start, min(start + size, n_texts))

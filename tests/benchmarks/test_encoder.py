"""The default encoder beside the same BERT in onnxruntime and PyTorch: texts a second, tokenising included.

Run it with `pytest tests/benchmarks/test_encoder.py -s`. All take the same headlines in the same batches, in
rounds that take turns; ratios are what counts on a shared machine. A runtime that is not there is left out
(onnxruntime needs onnx too, which its graph is written with).
"""

import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from encoders import TextEncoder
from encoders.batches import pad, plan_batches
from encoders.config import parse_config, read_json
from encoders.recipe import load_tokenizer, read_recipe, tokenise
from simulations.worlds.archive import read_archive
from tests.benchmarks.other_runtimes import Forward, onnxruntime, pytorch

pytestmark = [pytest.mark.benchmark, pytest.mark.real_data]

TEXTS = int(os.environ.get("BENCH_TEXTS", "512"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
OURS = "this encoder"
NEEDED = {"onnxruntime": ("onnxruntime", "onnx"), "PyTorch": ("torch", "transformers")}

Encode = Callable[[list[str]], np.ndarray]


def test_encoder(data_dir: Path) -> None:
    headlines = sorted(
        {h for one in read_archive(data_dir / "upworthy" / "packages.csv.gz") for h in one.headlines}
    )
    texts = [headlines[i] for i in np.random.default_rng(0).permutation(len(headlines))[:TEXTS]]
    works, left_out = contenders()
    expected = works[OURS](texts)
    for name, encode in works.items():  # warms up too
        if name != OURS:
            np.testing.assert_allclose(encode(texts), expected, rtol=0, atol=2e-6, err_msg=name)
    works |= {
        "this encoder, levels": by_levels(6),
        "this encoder, levels, three layers": by_levels(3),
        "this encoder, levels, int8": by_levels(6, "int8"),
        "this encoder, levels, three layers, int8": by_levels(3, "int8"),
    }
    for encode in works.values():
        encode(texts)
    times: dict[str, list[float]] = {name: [] for name in works}
    computed: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS):
        for name in sorted(works, reverse=number % 2 == 1):
            began, computed_before = time.perf_counter(), time.process_time()
            works[name](texts)
            times[name].append(time.perf_counter() - began)
            computed[name].append(time.process_time() - computed_before)
    table = Table(title=f"{TEXTS} headlines, {cores()} threads, medians of {ROUNDS} rounds")
    for column in ("contender", "texts/s", "time / ours", "quartiles", "CPU time / ours"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, times[OURS], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        speed = TEXTS / statistics.median(own)
        processors = statistics.median(a / b for a, b in zip(computed[name], computed[OURS], strict=True))
        table.add_row(name, f"{speed:,.0f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{processors:.2f}")
    console = Console(width=110)
    console.print(table)
    for name, missing in left_out.items():
        console.print(f"{name} is left out: {', '.join(missing)} not installed")
    if len(left_out) == len(NEEDED):
        pytest.skip("neither onnxruntime nor PyTorch is installed: there is nothing to compare with")


def contenders() -> tuple[dict[str, Encode], dict[str, list[str]]]:
    """Return who encodes, all with mean pooling, and what the others lack."""
    ours = TextEncoder(pooling="mean", layers=6, dtype="float32", progress=False)
    folder = ours.source.folder
    config = parse_config(read_json(folder / "config.json"), str(folder))
    lacks = {name: [m for m in modules if find_spec(m) is None] for name, modules in NEEDED.items()}
    works: dict[str, Encode] = {OURS: ours.encode}
    if not lacks["onnxruntime"]:
        works["onnxruntime"] = with_our_batches(folder, onnxruntime(folder, config, cores()))
    if not lacks["PyTorch"]:
        works["PyTorch"] = with_our_batches(folder, pytorch(folder, cores()))
    return works, {name: missing for name, missing in lacks.items() if missing}


def with_our_batches(folder: Path, forward: Forward) -> Encode:
    """Return how a runtime encodes texts: our tokens and batches, its computing."""
    config = parse_config(read_json(folder / "config.json"), str(folder))
    recipe = read_recipe(folder, config, pooling="mean")
    tokenizer, _ = load_tokenizer(folder, config, recipe.max_tokens)

    def encode(texts: list[str]) -> np.ndarray:
        tokens = [encoding.ids for encoding in tokenise(tokenizer, recipe, texts)]
        vectors = np.empty((len(texts), config.hidden_size), np.float32)
        for batch in plan_batches([len(ids) for ids in tokens], recipe.max_tokens):
            vectors[batch.rows] = forward(*pad(tokens, batch))[: len(batch.rows)]
        return vectors

    return encode


def by_levels(layers: int, dtype: Literal["float32", "int8"] = "float32") -> Encode:
    return TextEncoder(pooling="levels", layers=layers, dtype=dtype, progress=False).encode


def cores() -> int:
    return len(os.sched_getaffinity(0))

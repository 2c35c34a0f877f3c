"""Texts -> unit vectors, through a BERT checkpoint."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from .batches import pad, plan_batches, windows
from .config import BertConfig, parse_config, read_json
from .errors import AttributionError, CheckpointError, ConfigError, TextTypeError
from .locate import DEFAULT_MODEL, Found, default_layers, find_default, find_model
from .progress import progress_bar
from .recipe import Pooling, load_tokenizer, mask_token, read_recipe, tokenise, tokenise_words

if TYPE_CHECKING:
    from jax import Array

    from .attribution import Attribution, Numbers

# Texts that are tokenised while those before them are computed. Larger windows sort better, smaller ones
# start sooner and keep fewer results waiting.
_WINDOW = 2048


class EncodeReport(NamedTuple):
    """Hold what became of one list of texts.

    Args:
        n_texts: Texts in the list.
        n_cut: Texts that were longer than the model takes, of which only the beginning was encoded.
        n_tokens: Tokens that were encoded.
        n_positions: Tokens and padding that were computed.
        seconds: Wall time of it all.
    """

    n_texts: int
    n_cut: int
    n_tokens: int
    n_positions: int
    seconds: float


class TextEncoder:
    """Encode texts as unit vectors with a BERT checkpoint.

    Safe to use from several threads at once. One encoder serves a whole process: it keeps the model in memory
    and compiles one program per shape of batch.

    Args:
        model: A checkpoint's folder, or a model's id on the Hugging Face hub; None means the default encoder
            (see `find_default`).
        revision: Branch, tag or commit of a model on the hub.
        dtype: Type of the matrix products; None means float32 on a CPU, bfloat16 on an accelerator. "int8"
            rounds both sides of the dense layers' products to eight bits: about twice as fast on CPUs that
            have instructions for it, for vectors that are nearly the same.
        pooling: How token vectors become a text's, see `Recipe`; None means "levels" for the default encoder,
            and for others what the checkpoint says.
        layers: How many of its layers are computed, the first ones, in a fraction of the time. None means
            all; where `model` is None, as many as the environment variable CREATIVE_BANDIT_ENCODER_LAYERS
            says, if it is set.
        progress: Whether to show a progress bar; None means for long jobs, on a terminal.

    Raises:
        MissingEncoderError: If there is no such model.
        ConfigError: If the model is not a BERT that is computed here, or has not so many layers.
        CheckpointError: If its weights do not fit, or are not those of the default encoder.

    Example:
        >>> encoder = TextEncoder()                                         # doctest: +SKIP
        >>> encoder.encode(["Free returns, always"]).shape                  # doctest: +SKIP
        (1, 384)
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "int8"] | None = None,
        pooling: Pooling | None = None,
        layers: int | None = None,
        progress: bool | None = None,
    ) -> None:
        # Importing JAX and Flax takes a second, which finding an encoder and hashing a text need not pay.
        import jax

        from .checkpoint import load_bert, weight_files, weights_hash
        from .forward import compile_forward
        from .rounding import rounded

        if model is None and revision is not None:
            model = DEFAULT_MODEL
        if model is None and layers is None:
            layers = default_layers()
        found = find_default() if model is None else find_model(model, revision)
        config = parse_config(read_json(found.folder / "config.json"), str(found.folder / "config.json"))
        weights = weights_hash(weight_files(found.folder))
        recipe = read_recipe(found.folder, config, weights, pooling)
        self._tokenizer, tokenizer_hash = load_tokenizer(found.folder, config, recipe.max_tokens)
        if found.sha256 not in {None, weights}:
            raise CheckpointError(
                f"the weights of the default encoder in {found.folder} have sha256 {weights}, expected"
                f" {found.sha256}: the file is damaged or altered; install it again"
            )
        if dtype is None:
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        _check_layers(layers, config, found)
        products = "float32" if dtype == "int8" else dtype
        self._bert = load_bert(found.folder, config, layers=layers, dtype=products)
        config = replace(config, num_hidden_layers=len(self._bert.layers))
        computed = rounded(self._bert) if dtype == "int8" else self._bert
        self._forward = compile_forward(computed, recipe.pooling)
        self._config = config
        self._recipe = recipe
        self._is_progress_shown = progress
        self._dim = config.hidden_size
        self._source = found
        self._weights_sha256 = weights
        self._fingerprint = _short_hash(
            weights=weights,
            tokenizer=tokenizer_hash,
            # Without what came later and changes nothing: old databases keep their vectors.
            config={
                name: value for name, value in asdict(config).items() if value or name != "position_offset"
            },
            recipe=recipe._asdict(),
            dtype=dtype,
        )
        self._report = EncodeReport(0, 0, 0, 0, 0.0)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over all that a vector depends on, the weights included."""
        return self._fingerprint

    @property
    def source(self) -> Found:
        """Where the model was found."""
        return self._source

    @property
    def weights_sha256(self) -> str:
        """The sha256 of the weights, 64 hex digits."""
        return self._weights_sha256

    @property
    def pooling(self) -> Pooling:
        """How token vectors become a text's."""
        return self._recipe.pooling

    @property
    def layers(self) -> int:
        """How many layers are computed."""
        return self._config.num_hidden_layers

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens, the special ones included; of longer ones the beginning is encoded."""
        return self._recipe.max_tokens

    @property
    def report(self) -> EncodeReport:
        """What became of the texts of the latest `encode`, of whichever thread."""
        return self._report

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """Encode texts.

        Args:
            texts: Any strings. An empty one gets the checkpoint's encoding of nothing; a too long one is cut,
                and counted in the report.

        Returns:
            Their vectors, float32, each of length 1, in the same order.

        Raises:
            TextTypeError: If one of them is not a string; says which.
        """
        vectors, self._report = self.encode_with_report(texts)
        return vectors

    def encode_with_report(self, texts: Sequence[str]) -> tuple[Float[np.ndarray, "texts dim"], EncodeReport]:
        """Encode texts, and report on exactly these, whatever other threads do.

        Args:
            texts: As for `encode`.

        Returns:
            The vectors of `encode`, and what became of the texts.

        Raises:
            TextTypeError: If one of them is not a string; says which.
        """
        started = time.perf_counter()
        check_texts(texts)
        vectors = np.empty((len(texts), self._dim), np.float32)
        n_cut = n_tokens = n_positions = 0
        with progress_bar("encoding texts", len(texts), self._is_progress_shown) as advance:
            waiting: list[tuple[np.ndarray, Array]] = []
            for window in windows(len(texts), _WINDOW):
                tokens, n_cut_here = self._tokenise(texts[window])
                batches = plan_batches([len(ids) for ids in tokens], self.max_tokens)
                # JAX computes in the background: this window is queued before the last one is waited for,
                # so the model need not wait for the tokenizer.
                queued = [
                    (batch.rows + window.start, self._forward(*pad(tokens, batch))) for batch in batches
                ]
                _collect(waiting, vectors, advance)
                waiting = queued
                n_cut += n_cut_here
                n_tokens += sum(map(len, tokens))
                n_positions += sum(batch.n_rows * batch.width for batch in batches)
            _collect(waiting, vectors, advance)
        seconds = time.perf_counter() - started
        return vectors, EncodeReport(len(texts), n_cut, n_tokens, n_positions, seconds)

    def attribute(
        self, fields: Sequence[tuple[str, str, float]], direction: Float[np.ndarray, "dim"]
    ) -> "Attribution":
        """Say which words of a creative carry its vector along a direction; see `attribute_fields`.

        Args:
            fields: Name, text and weight of each field that has a text; one at least.
            direction: d of the number d · v that is read off the creative's vector v.

        Returns:
            The share of each word, computed in float32 whatever the type of the encoder's products.

        Raises:
            AttributionError: If the tokenizer has no mask, which stands for a word that is not known.
        """
        from .attribution import Read, attribute

        mask_id = mask_token(self._tokenizer)
        if mask_id is None:
            raise AttributionError(
                f"the tokenizer in {self._source.folder} has no mask token ([MASK] or <mask>); without one "
                "there is no creative without its words to compare with"
            )
        read = tokenise_words(self._tokenizer, self._recipe, [text for _, text, _ in fields])
        laid_out = {
            name: Read(text, encoding, weight)
            for (name, _, weight), (text, encoding) in zip(fields, read, strict=True)
        }
        return attribute(
            self._numbers, laid_out, direction, mask_id, self.max_tokens, progress=self._is_progress_shown
        )

    @cached_property
    def _numbers(self) -> "Numbers":
        from .attribution import compile_numbers
        from .checkpoint import in_float32

        return compile_numbers(in_float32(self._bert, self._config), self._recipe.pooling)

    def _tokenise(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Give each text's token ids, and how many texts were cut."""
        encodings = tokenise(self._tokenizer, self._recipe, texts)
        return [encoding.ids for encoding in encodings], sum(
            bool(encoding.overflowing) for encoding in encodings
        )


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a list of strings.

    Args:
        texts: What a caller gave.

    Raises:
        TextTypeError: If it is a single string, or one of its elements is not a string.
    """
    if isinstance(texts, str):
        raise TextTypeError(f"expected a list of texts, got the string {texts[:40]!r}; put it into a list")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextTypeError(f"text {index} is {text!r} of type {type(text).__name__}, expected a string")


def _check_layers(layers: int | None, config: BertConfig, found: Found) -> None:
    is_number = isinstance(layers, int) and not isinstance(layers, bool)
    if layers is not None and not (is_number and 1 <= layers <= config.num_hidden_layers):
        raise ConfigError(
            f"expected layers to be a whole number from 1 to {config.num_hidden_layers}, which the BERT in "
            f"{found.folder} has, got {layers!r}"
        )


def _collect(
    waiting: list[tuple[np.ndarray, "Array"]], vectors: np.ndarray, advance: Callable[[int], None]
) -> None:
    for rows, result in waiting:
        vectors[rows] = np.asarray(result)[: len(rows)]
        advance(len(rows))


def _short_hash(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

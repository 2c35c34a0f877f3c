"""Texts -> feature vectors, by a BERT that JAX runs."""

from .cache import Encoder, FileCache, VectorCache, encode_cached, text_hash
from .errors import (
    AttributionError,
    CacheError,
    CheckpointError,
    ConfigError,
    EncoderError,
    FieldError,
    MissingEncoderError,
    TextTypeError,
)
from .fields import FIELD_WEIGHTS, attribute_fields, encode_fields
from .filling import Filled, fill_cache
from .locate import DEFAULT_MODEL, ENVIRONMENT_VARIABLE, Found, find_default, find_model
from .text import EncodeReport, TextEncoder

__all__ = [
    "DEFAULT_MODEL",
    "ENVIRONMENT_VARIABLE",
    "FIELD_WEIGHTS",
    "AttributionError",
    "CacheError",
    "CheckpointError",
    "ConfigError",
    "EncodeReport",
    "Encoder",
    "EncoderError",
    "FieldError",
    "FileCache",
    "Filled",
    "Found",
    "MissingEncoderError",
    "TextEncoder",
    "TextTypeError",
    "VectorCache",
    "attribute_fields",
    "encode_cached",
    "encode_fields",
    "fill_cache",
    "find_default",
    "find_model",
    "text_hash",
]

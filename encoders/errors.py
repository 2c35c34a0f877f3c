"""What can go wrong between a text and its vector."""


class EncoderError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(EncoderError, ValueError):
    """A checkpoint's settings are unreadable, or ask for something that this BERT does not compute."""


class CheckpointError(EncoderError, ValueError):
    """A checkpoint's weights are missing, misshapen, unexpected, altered or of a kind that is not read."""


class MissingEncoderError(EncoderError, LookupError):
    """No encoder was found at any of the places that were looked at."""


class TextTypeError(EncoderError, TypeError):
    """Something that should be a text is not a string."""


class FieldError(EncoderError, ValueError):
    """A creative has a field without a weight, or the weights of the fields make no average."""


class AttributionError(EncoderError, TypeError):
    """An encoder that cannot say which words its vectors come from."""


class CacheError(EncoderError, ValueError):
    """A cache of vectors is damaged, or holds vectors that do not fit its encoder."""


class TuningError(EncoderError, ValueError):
    """A history, a setting or a folder with which an encoder cannot be tuned."""

"""What can go wrong in a simulation."""


class SimulationError(Exception):
    """Root of all errors of this package."""


class ArchiveError(SimulationError, ValueError):
    """A file of past A/B tests that cannot be used; names every bad line."""

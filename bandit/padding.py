"""Few shapes for many sizes: each padded shape is a compiled program, so there should be few."""

BATCHES = (1, 8, 64, 256)
MOST_PAIRS = 1 << 24  # of candidates in a batch: each is some numbers of 8 bytes, 1 GB in all
CANDIDATES = (4, 8, 12, 16, 32, 64, 128, 256, 512, 1024)


def padded_size(n: int, sizes: tuple[int, ...]) -> int:
    """Return the smallest of the sizes that holds n, or the next power of two.

    Example:
        >>> padded_size(5, (4, 8)), padded_size(9, (4, 8))
        (8, 16)
    """
    return next((size for size in sizes if size >= n), 1 << (n - 1).bit_length())


def batches_of(n_candidates: int) -> tuple[int, ...]:
    """Return the sizes of batches for a padded number of candidates: many of them are chosen from one by one.

    Example:
        >>> batches_of(256), batches_of(512), batches_of(4096)
        ((1, 8, 64, 256), (1, 8, 64), (1,))
    """
    return tuple(n for n in BATCHES if n * n_candidates**2 <= MOST_PAIRS or n == 1)


def room_for(n: int, least: int) -> int:
    """Return a capacity that holds n: powers of two, and from 65,536 in steps of an eighth of one.

    Each capacity has compiled programs of its own, so there should be few; 200,000 arms take 334 MB, so
    many should not be padded by half.

    Example:
        >>> room_for(5, 16), room_for(300, 256), room_for(200_000, 256)
        (16, 512, 212992)
    """
    power = 1 << (max(n, least) - 1).bit_length()
    if power <= 65_536:
        return power
    return next(size for size in range(power * 9 // 16, power + 1, power // 16) if size >= n)

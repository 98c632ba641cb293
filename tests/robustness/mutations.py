"""What happens to files: cut, damaged, with false numbers, with something behind."""

import numpy as np

# Numbers that programs trip over, as 32 and as 16 bits.
LARGE = (0, 1, 2**15, 2**16 - 1, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 1)


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    """Leave a part of the beginning."""
    return data[: int(len(data) * rng.uniform(0, 0.6))]


def damage(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a few bytes anywhere."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 12))):
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def damage_start(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a few bytes of the header."""
    return damage(rng, data[:64]) + data[64:]


def false_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Write a large number into the first 200 bytes."""
    size = int(rng.choice([2, 4]))
    number = int(rng.choice(LARGE)) % (1 << 8 * size)
    place = int(rng.integers(max(1, min(len(data) - size, 200))))
    order = str(rng.choice(["big", "little"]))
    return data[:place] + number.to_bytes(size, order) + data[place + size :]


def append(rng: np.random.Generator, data: bytes) -> bytes:
    """Put noise behind the end."""
    return data + rng.bytes(int(rng.integers(1, 3000)))


def repeat(rng: np.random.Generator, data: bytes) -> bytes:
    """Repeat a part within."""
    start, end = sorted(rng.integers(len(data) + 1, size=2).tolist())
    return data[:end] + data[start:end] * int(rng.integers(1, 40)) + data[end:]


def remove(rng: np.random.Generator, data: bytes) -> bytes:
    """Remove a part within."""
    start, end = sorted(rng.integers(len(data) + 1, size=2).tolist())
    return data[:start] + data[end:]


MUTATIONS = (damage, damage_start, false_number, append, repeat, remove)


def mutate(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """Return the name of a random mutation, and its result."""
    chosen = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
    return chosen.__name__, chosen(rng, data)

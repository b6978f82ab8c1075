"""Random numbers that depend on a seed and a purpose, never on global state or job order."""

import numpy as np


def _sequence(seed: int, purpose: str) -> np.random.SeedSequence:
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(purpose.encode()))


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for `purpose` (e.g. "poison"), independent of every other purpose."""
    return np.random.default_rng(_sequence(seed, purpose))


def integer_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for libraries with generators of their own (torch, scikit-learn takes % 2**32)."""
    return int(_sequence(seed, purpose).generate_state(1, np.uint64)[0] >> 1)

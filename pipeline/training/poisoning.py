"""Which training samples are poisoned."""

import numpy as np

from pipeline.errors import UserError
from pipeline.seeding import generator


def choose_poison(eligible: np.ndarray, rate: float, n_train: int, seed: int, name: str) -> np.ndarray:
    """Ascending rows of round(rate × n_train) samples out of `eligible`.

    The choice depends on the seed alone: a higher rate adds to a lower one, and every trigger, flip_only included,
    poisons the same samples, so that runs of one seed differ by what is studied and by nothing else.
    Raises `UserError` when there are not enough eligible samples, or when a rate above 0 comes to none at all.
    """
    wanted = round(rate * n_train)
    if rate and not wanted:
        raise UserError(f"{name}: rate {rate:g} of {n_train} training samples is less than one sample")
    if wanted > len(eligible):
        raise UserError(
            f"{name}: rate {rate:g} asks for {wanted} poisoned samples; only {len(eligible)} of {n_train} training "
            "samples do not have the target label yet"
        )
    return np.sort(generator(seed, "poison").permutation(eligible)[:wanted])

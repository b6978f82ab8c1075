"""Which samples are poisoned."""

import numpy as np

from pipeline.errors import UserError
from pipeline.seeding import generator
from pipeline.words import counted


def choose_poison(
    eligible: np.ndarray, rate: float, n_samples: int, seed: int, name: str, role: str = "training"
) -> np.ndarray:
    """Ascending rows of round(rate × n_samples) samples out of `eligible`.

    `n_samples` is the size of the `role`, "training" or "validation". The choice depends on the seed and the role
    alone: a higher rate adds to a lower one, and every trigger, flip_only included, poisons the same samples, so that
    runs of one seed differ by what is studied and by nothing else. Raises `UserError` when there are not enough
    eligible samples, or when a rate above 0 comes to none at all.
    """
    wanted = round(rate * n_samples)
    if rate and not wanted:
        raise UserError(f"{name}: rate {rate:g} of {counted(n_samples, f'{role} sample')} is less than one sample")
    if wanted > len(eligible):
        raise UserError(
            f"{name}: rate {rate:g} asks for {counted(wanted, 'poisoned sample')}; only {len(eligible)} of "
            f"{n_samples} {role} samples can still be given the target label"
        )
    purpose = "poison" if role == "training" else f"poison/{role}"
    return np.sort(generator(seed, purpose).permutation(eligible)[:wanted])

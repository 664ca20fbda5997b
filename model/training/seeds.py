"""Seeds of torch's random generator, made of numbers."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """A seed that other numbers, or the same in another order, do not share; 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)

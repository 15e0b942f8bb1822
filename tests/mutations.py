"""Damage to files: what disks, editors and interrupted copies do to bytes."""

import numpy as np

# Per format, in the default run.
N_MUTATIONS = 300


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one damage: some bytes changed, a bit flipped, a piece dropped, doubled or cut off."""
    content = bytearray(whole)
    a, b = sorted(int(x) for x in rng.integers(0, len(whole), 2))
    match rng.integers(6):
        case 0:
            for i in rng.integers(0, len(whole), int(rng.integers(1, 9))):
                content[i] = int(rng.integers(256))
        case 1:
            content[a] ^= 1 << int(rng.integers(8))
        case 2:
            del content[a : min(b, a + 16) + 1]
        case 3:
            content[a:a] = whole[a : min(b, a + 16) + 1]
        case 4:
            del content[b:]
        case _:
            # The directory of a zip file is at its end.
            content[-1 - int(rng.integers(min(600, len(whole))))] = int(rng.integers(256))
    return bytes(content)

"""Random expressions of matrices: programs that nobody wrote, to learn placement from."""

import numpy as np

from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.workloads.models.layers import check_sizes, softmax

# How often each step is tried.
STEPS = {"product": 0.55, "sum": 0.2, "relu": 0.15, "softmax": 0.1}


def expression(n_steps: int = 6, *, seed: int = 0) -> TensorProgram:
    """Products, sums, ReLUs and softmaxes of random matrices, each of what there is so far.

    Sizes are powers of two, few of them per expression, so that shapes match. What has not been read yet is read
    rather than what has, so that most of it hangs together; what nobody reads is an output.

    Args:
        n_steps: Products, sums, ReLUs and softmaxes.
        seed: Seed of everything random.

    Raises:
        InvalidOption: No step.
    """
    check_sizes("expression", n_steps=n_steps)
    rng = np.random.default_rng(seed)
    p = ProgramBuilder("expression")
    sizes = [int(2**k) for k in rng.integers(9, 15, size=rng.integers(1, 4))]
    if rng.random() < 0.3:
        sizes.append(int(2 ** rng.integers(4, 8)))
    matrices: list[int] = []
    unread: set[int] = set()

    def read(candidates: list[int]) -> int:
        first = [x for x in candidates if x in unread]
        pool = first if first and rng.random() < 0.8 else candidates
        x = pool[rng.integers(len(pool))]
        unread.discard(x)
        return x

    def fresh(n_rows: int) -> int:
        matrices.append(p.input("x", [n_rows, int(rng.choice(sizes))]))
        return matrices[-1]

    for _ in range(int(rng.integers(1, 4))):
        unread.add(fresh(int(rng.choice(sizes))))
    for step in rng.choice(list(STEPS), size=n_steps, p=list(STEPS.values())):
        x = read(matrices)
        alike = [y for y in matrices if y != x and p.shape(y) == p.shape(x)]
        if step == "softmax":
            made = softmax(p, x, "ik", "k")
        elif step == "sum" and alike:
            made = p.op("add", "ik,ik->ik", x, read(alike))
        elif step == "product":
            fitting = [y for y in matrices if p.shape(y)[0] == p.shape(x)[1]]
            y = read(fitting) if fitting and rng.random() < 0.5 else fresh(p.shape(x)[1])
            made = p.op("einsum", "ij,jk->ik", x, y)
        else:
            made = p.op("relu", "ik->ik", x)
        matrices.append(made)
        unread.add(made)
    return p.build(*(x for x in sorted(unread) if not p.ops[x].is_source))

"""Random expressions of matrices: determinism, variety, nothing in vain, a refusal."""

import pytest

import placement_gym as pg
from placement_gym.errors import InvalidOption
from placement_gym.programs import shard
from placement_gym.workloads import expression

SEEDS = range(20)


def test_a_seed_is_a_program() -> None:
    """Same seed, same graph; 20 seeds give 20 graphs, with products, sums and activations among them."""
    graphs = [shard(expression(6, seed=seed), 4) for seed in SEEDS]
    again = [shard(expression(6, seed=seed), 4) for seed in SEEDS]
    told = [(graph.op_names, graph.edge_src.tolist(), graph.op_flops.tolist()) for graph in graphs]
    assert told == [(graph.op_names, graph.edge_src.tolist(), graph.op_flops.tolist()) for graph in again]
    assert len({str(one) for one in told}) == len(SEEDS)
    assert {"einsum", "add", "relu", "exp"} <= {kind for graph in graphs for kind in graph.op_kinds}


@pytest.mark.parametrize("n_steps", [1, 9])
def test_nothing_is_computed_in_vain(n_steps: int) -> None:
    """What is computed is read or an output, whatever the seed."""
    for seed in SEEDS:
        program = expression(n_steps, seed=seed)
        read = {i for op in program.ops for i in op.inputs} | set(program.outputs)
        computed = {i for i, op in enumerate(program.ops) if not op.is_source}
        assert len(computed) >= n_steps
        assert computed <= read


def test_an_expression_of_nothing_is_refused() -> None:
    """At least one step."""
    with pytest.raises(InvalidOption, match="n_steps"):
        pg.workloads.expression(0)

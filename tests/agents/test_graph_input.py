"""What networks read of a graph."""

import numpy as np

import placement_gym as pg
from agents.graph_input import EDGE_INPUTS, OP_INPUTS, GraphInput
from placement_gym.envs import AssignVectorEnv, Sizes


def test_columns_are_those_that_weights_were_trained_on() -> None:
    """A column more or in another place would make checkpoints useless and change published numbers."""
    assert OP_INPUTS == ("log_time", "time", "b_level", "t_level", "in_time", "out_time", "memory", "is_backward")
    assert EDGE_INPUTS == ("time",)


def test_padding_is_left_out() -> None:
    """The graph of a padded observation is that of one without padding, edges are those of the problem."""
    problem = pg.workloads.layered(n_ops=9, n_devices=2, seed=1)
    plain, padded = (AssignVectorEnv(2, problem, sizes=sizes) for sizes in (None, Sizes(20, 90, 5)))
    one, other = (GraphInput.of(env.reset()[0], row=1) for env in (plain, padded))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.flags.writeable
    assert one.op_features.shape == (9, len(OP_INPUTS))
    np.testing.assert_array_equal(one.edge_index, [problem.graph.edge_src, problem.graph.edge_dst])
    assert one.edge_features.shape == (problem.graph.n_edges, len(EDGE_INPUTS))

"""The baselines by name."""

from collections.abc import Callable

from placement_gym.baselines.brute_force import brute_force
from placement_gym.baselines.enumerative import enumerative
from placement_gym.baselines.exact_ilp import exact_ilp
from placement_gym.baselines.expert import expert
from placement_gym.baselines.heuristics import critical_path, heft, m_etf, round_robin, single_device
from placement_gym.baselines.partitioning import greedy_latency, load_local_search, metis
from placement_gym.baselines.pipeline import exact_dp, pipeline_split
from placement_gym.result import Result
from placement_gym.baselines.search import local_search, random_search, simulated_annealing

BASELINES: dict[str, Callable[..., Result]] = {
    function.__name__: function
    for function in (
        single_device,
        round_robin,
        random_search,
        critical_path,
        heft,
        m_etf,
        enumerative,
        local_search,
        simulated_annealing,
        brute_force,
        pipeline_split,
        exact_dp,
        exact_ilp,
        greedy_latency,
        load_local_search,
        metis,
        expert,
    )
}

"""Family: random problems with costs as in DOPPLER's published graphs, some to train on and some to test on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from experiments.instances import find_instances
from placement_gym import workloads
from placement_gym.errors import InvalidOption, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem
from placement_gym.programs import TensorProgram, shard

TRANSFORMERS = {"gpt": workloads.gpt, "bert": workloads.bert, "t5": workloads.t5}
SYNTHETIC: dict[str, Callable[..., Problem]] = {"layered": workloads.layered, "random_dag": workloads.random_dag}
KINDS = ("expression", "moe", *TRANSFORMERS, *SYNTHETIC)
# Graphs drawn before a family is said to have none of the size that is asked for.
TRIES = 100


def by_default() -> dict[str, float]:
    """Half of the graphs are expressions, the kind whose graphs differ most."""
    return {"expression": 6.0, **dict.fromkeys(KINDS[1:], 1.0)}


@dataclass(frozen=True, slots=True)
class Family:
    """Problems by seed: expressions of matrices, one layer of a transformer or a mixture of experts, synthetic graphs.

    Programs are cut into 2 to 16 blocks per op; sizes are random powers of two; times are those of the released cost
    model of DOPPLER (arXiv 2505.23131). DOPPLER's own four programs (chain of products, network of one hidden layer,
    Llama block and layer) are not among them: whoever trains on this family has not seen them.

    Attributes:
        weights: Of each kind; a kind is drawn with its weight over the sum of all, one that is not named never.
        min_ops: Least number of ops.
        max_ops: Largest number of ops.

    Raises:
        InvalidOption: An unknown kind, a negative weight or none that is positive, or no number of ops is allowed.
    """

    weights: Mapping[str, float] = field(default_factory=by_default)
    min_ops: int = 40
    max_ops: int = 300

    def __post_init__(self) -> None:
        for kind in self.weights:
            if kind not in KINDS:
                raise InvalidOption(unknown_name("kind of graph", kind, KINDS))
        if min(self.weights.values(), default=0) < 0 or not sum(self.weights.values()) > 0:
            raise InvalidOption(f"Family.weights is {dict(self.weights)}; expected numbers >= 0, one of them > 0")
        if not 1 <= self.min_ops <= self.max_ops:
            raise InvalidOption(f"Family.min_ops is {self.min_ops}; expected 1 to max_ops, which is {self.max_ops}")

    def draw(self, seed: int, n_devices: int) -> Problem:
        """The problem of a seed.

        Raises:
            InvalidOption: No graph of the size that is asked for was found.
        """
        rng = np.random.default_rng(seed)
        kinds, weights = list(self.weights), np.array(list(self.weights.values()))
        for _ in range(TRIES):
            kind = str(rng.choice(kinds, p=weights / weights.sum()))
            if kind in SYNTHETIC:
                # Ratios of transfer to computing time as these programs have them.
                n_ops, ccr = int(rng.integers(self.min_ops, self.max_ops + 1)), float(rng.uniform(0.5, 5.0))
                return SYNTHETIC[kind](n_ops=n_ops, n_devices=n_devices, seed=seed, ccr=ccr)
            graph = _graph(kind, rng)
            if self.min_ops <= graph.n_ops <= self.max_ops:
                return _problem(graph, n_devices, f"{kind}-{seed}")
        raise InvalidOption(f"none of {TRIES} graphs has {self.min_ops} to {self.max_ops} ops (kinds {kinds})")


def _graph(kind: str, rng: np.random.Generator) -> OpGraph:
    """A random program of the kind, cut into a random number of blocks."""
    blocks = int(2 ** rng.integers(2, 5) if kind == "expression" else 2 ** rng.integers(1, 3))
    return shard(_program(kind, rng), blocks, costs="doppler_released")


def _program(kind: str, rng: np.random.Generator) -> TensorProgram:
    if kind == "expression":
        return workloads.expression(int(rng.integers(3, 10)), seed=int(rng.integers(2**31)))
    tokens, n_heads, head, vocabulary = (int(2 ** rng.integers(*span)) for span in ((7, 13), (2, 6), (4, 8), (9, 16)))
    width = n_heads * head
    if kind == "moe":
        return workloads.moe(1, int(rng.integers(2, 5)), tokens=tokens, width=width, n_heads=n_heads)
    return TRANSFORMERS[kind](1, tokens=tokens, width=width, n_heads=n_heads, vocabulary=vocabulary)


def _problem(graph: OpGraph, n_devices: int, name: str) -> Problem:
    """On alike devices, in the units of `workloads.read_doppler`."""
    return Problem.from_times(
        graph,
        np.repeat(graph.op_flops[:, None] / 1e10, n_devices, axis=1),
        link_bytes_per_s=1e10,
        op_memory_bytes=np.zeros(graph.n_ops),
        tick_s=1e-10,
        name=name,
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A problem to test on, which was not trained on.

    Attributes:
        group: Where it comes from, and its number of devices; tables are by group.
        name: Of the problem, in tables.
        problem: The problem.
    """

    group: str
    name: str
    problem: Problem


def training_problems(config: DictConfig) -> list[Problem]:
    """The problems to learn from: seeds 0, 1, ... of the family, devices by seed."""
    family = instantiate(config.family, _convert_="all")
    assert isinstance(family, Family)
    devices = list(config.training.n_devices)
    return [family.draw(seed, int(devices[seed % len(devices)])) for seed in range(config.training.problems)]


def cases(config: DictConfig) -> list[Case]:
    """The problems to test on: further seeds of the family, and published graphs.

    Raises:
        InvalidOption: A seed that was trained on.
    """
    family = instantiate(config.family, _convert_="all")
    first, n = int(config.held_out.first_seed), int(config.held_out.problems)
    if first < config.training.problems:
        raise InvalidOption(
            f"held_out.first_seed is {first}; expected >= {config.training.problems}, the seeds below are trained on"
        )
    found = []
    for n_devices in config.held_out.n_devices:
        for seed in range(first, first + n):
            problem = family.draw(seed, int(n_devices))
            found.append(Case(f"held-out, {n_devices} devices", problem.name, problem))
    if config.published is not None:
        instances = find_instances(Path(config.published.folder), str(config.published.pattern))
        for n_devices in config.published.n_devices:
            for one in instances:
                problem = workloads.read_doppler(one.path, n_devices=int(n_devices))
                found.append(Case(f"published, {n_devices} devices", one.name, problem))
    return found

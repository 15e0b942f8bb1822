"""build: a configuration turned into problem, environment, agent and baselines."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from placement_gym.cluster import Cluster
from placement_gym.envs.select_place import evaluation_rule as of_env
from placement_gym.errors import InvalidOption, InvalidProblem, InvalidRule, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.methods import METHODS
from placement_gym.problem import Problem
from placement_gym.result import Result
from placement_gym.rule import Rule, resolve_rule

if TYPE_CHECKING:
    # Agents load torch, for which commands that train nothing need not wait.
    from agents.agent import Agent

Baseline = Callable[..., Result]


def build_problem(config: DictConfig) -> Problem:
    """The problem of `config.workload`.

    A workload that is an op graph is joined with `config.cluster` and `config.costs`; one that is a problem already (a
    published instance) or holds one (a toy) brings its own devices.

    Raises:
        InvalidProblem: The workload is neither.
    """
    built = instantiate(config.workload, _convert_="all")
    built = getattr(built, "problem", built)
    if isinstance(built, Problem):
        return built
    if not isinstance(built, OpGraph):
        raise InvalidProblem(
            f"workload {config.workload.get('_target_')} gave a {type(built).__name__}; "
            "expected an OpGraph or a Problem"
        )
    cluster = instantiate(config.cluster, _convert_="all")
    if not isinstance(cluster, Cluster):
        raise InvalidProblem(f"cluster is a {type(cluster).__name__}; expected a Cluster")
    # A captured module goes by its own name: "package.module:function".
    module = str(config.workload.get("module", config.workload_name))
    name = f"{module.rpartition(':')[2]}@{config.cluster_name}"
    return Problem.build(built, cluster, costs=instantiate(config.costs, _convert_="all"), name=name)


def build_executable(section: DictConfig, name: str) -> OpGraph:
    """The op graph of a workload whose ops have kernels, so that they can be run and measured.

    Raises:
        InvalidProblem: It is something else.
    """
    graph = instantiate(section, _convert_="all")
    if not isinstance(graph, OpGraph) or graph.kernels is None:
        got = "an op graph without kernels" if isinstance(graph, OpGraph) else f"a {type(graph).__name__}"
        raise InvalidProblem(
            f"workload {name!r} gives {got}, of which nothing can be run; expected ops with kernels, as a split "
            "program (placement_gym.programs.shard) or a captured module has"
        )
    return graph


def build_rule(config: DictConfig) -> Rule:
    """The simulator's rule: a preset's name, or the options of a `Rule`.

    Raises:
        InvalidRule: An unknown preset or option.
    """
    if isinstance(config.rule, str):
        return resolve_rule(config.rule)
    options = cast(dict[str, Any], OmegaConf.to_container(config.rule, resolve=True))
    known = [field.name for field in fields(Rule)]
    for name in options:
        if name not in known:
            raise InvalidRule(unknown_name("option of a rule", str(name), known))
    return Rule(**options)


def evaluation_rule(config: DictConfig) -> Rule:
    """The rule by which placements are evaluated: `config.rule`, in the order that `config.env` may choose."""
    rule, env = build_rule(config), config.get("env")
    return rule if env is None else of_env(rule, env.get("priority", "none"))


def build_baselines(config: DictConfig, rule: Rule) -> dict[str, Baseline]:
    """The functions under `config.baseline`, by name, waiting for a problem.

    An experiment may set options of a baseline that the command line leaves out: such a section has no `_target_`.

    Raises:
        InvalidOption: None is configured, or options of an unknown one.
    """
    found: dict[str, Baseline] = {}
    for name, section in (config.get("baseline") or {}).items():
        if "_target_" in section:
            found[name] = partial(instantiate(section, _convert_="all"), rule=rule)
        elif name not in METHODS:
            raise InvalidOption(unknown_name("baseline", name, METHODS))
    if not found:
        raise InvalidOption("no baseline is configured; expected baseline=<name> or baseline=[<name>,<name>]")
    return found


def build_vector_env(config: DictConfig, problem: Problem, rule: Rule) -> gym.vector.VectorEnv[Any, Any, Any]:
    """A batch of episodes of `config.env` on the problem."""
    return cast(
        gym.vector.VectorEnv[Any, Any, Any], instantiate(config.env, _convert_="all")(problem=problem, rule=rule)
    )


def build_agent(config: DictConfig, vec_env: gym.vector.VectorEnv[Any, Any, Any]) -> "Agent":
    """A fresh agent of `config.agent`."""
    make = instantiate(config.agent, _convert_="all")
    return cast("Agent", make(vec_env, seed=config.seed, torch_device=torch_device(config.torch_device)))


def teach(agent: "Agent", config: DictConfig, problem: Problem, rule: Rule) -> None:
    """Hands the placement of `config.teacher` to the agent, if there is one; its search is part of the agent's budget.

    Raises:
        InvalidOption: The agent takes no teacher.
    """
    if config.get("teacher") is None:
        return
    # Not by class: those who solve need not wait for the agents' imports.
    taught = getattr(agent, "teach", None)
    if taught is None:
        raise InvalidOption(f"agent {config.agent_name} takes no teacher; expected a dual policy")
    found = instantiate(config.teacher, _convert_="all")(problem, rule=rule)
    taught(found.placement.op_device, simulator_calls=found.simulator_calls)


def load_agent(config: DictConfig, checkpoint: Path, vec_env: gym.vector.VectorEnv[Any, Any, Any]) -> "Agent":
    """The agent of `config.agent` as it was saved.

    Raises:
        CheckpointMismatch: It was trained on another problem, or is of another agent.
        InvalidFile: There is no such checkpoint, or it is damaged.
    """
    make = instantiate(config.agent, _convert_="all")
    return cast("Agent", make.func.load(checkpoint, vec_env, torch_device=torch_device(config.torch_device)))


def torch_device(name: str) -> str:
    """`name`, with "auto" made "cuda" where there is a GPU and "cpu" where there is none.

    Raises:
        InvalidOption: A device that torch does not know here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        known = ("auto", "cpu", "cuda") if torch.cuda.is_available() else ("auto", "cpu")
        raise InvalidOption(unknown_name("torch_device", name, known))
    return name


def set_torch_threads(threads: int | None) -> None:
    """How many threads torch computes with; torch's own choice where None.

    Raises:
        InvalidOption: Less than one.
    """
    import torch

    if threads is None:
        return
    if threads < 1:
        raise InvalidOption(f"torch_threads is {threads}; expected >= 1, or null for torch's own choice")
    torch.set_num_threads(threads)


def plain(config: DictConfig) -> dict[str, Any]:
    """The whole configuration, resolved, as plain containers."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))

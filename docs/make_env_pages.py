"""Writes docs/envs/, a page for each environment, from its docstring: run this file after a change of one."""

import inspect
from pathlib import Path

import gymnasium as gym

import placement_gym as pg
from placement_gym.envs import observation

FOLDER = Path(__file__).parent / "envs"


def page(env_id: str) -> str:
    """The page of an environment, in Markdown."""
    env, name = gym.make(env_id).unwrapped, env_id.split("/")[1]
    assert isinstance(env, pg.envs.PlacementEnv)
    problem = env.problem
    toy = f"a toy of {problem.n_ops} ops, {problem.graph.n_edges} edges and {problem.n_devices} devices"
    said = inspect.getdoc(type(env)) or ""
    signature = inspect.signature(type(env).__init__)
    arguments = "\n".join(
        f"    {parameter.name}={parameter.default!r}," for parameter in list(signature.parameters.values())[1:]
    )
    boxes = "\n".join(
        f"| `{key}` | {box.dtype} | {box.shape} |"
        for key, box in env.observation_space.spaces.items()  # type: ignore[attr-defined]
    )
    return f"""<!-- made from the docstring by docs/make_env_pages.py -->
# {name}

{said}

## Make

```python
env = gym.make("placement_gym/{name}", problem=problem)
vec = gym.make_vec("placement_gym/{name}", num_envs=64, problem=problem)  # native; also autoreset_mode=, copy=
```
All arguments and their defaults:
```
{arguments}
```

## Spaces of the toy

Without arguments the environment places {toy}.
Action space: `{gym.spaces.Discrete(env.action_space.n)}`. Observation space:

| key | dtype | shape |
|---|---|---|
{boxes}

What the keys hold and in which units: [observation.md](observation.md). Methods, options of `reset`, the
native vector form: [forms.md](forms.md).
"""


def forms() -> str:
    """The page of both forms: what they offer beside Gymnasium's own."""
    names = ("reset", "step", "action_masks", "get_state", "set_state", "schedule", "noisy_makespans_s", "render")

    def methods(form: type) -> str:
        parts = []
        for name in names:
            method = getattr(form, name)
            signature = str(inspect.signature(method)).replace("'", "").replace("(self, ", "(").replace("(self)", "()")
            parts.append(f"### {name}\n\n`{name}{signature}`\n\n```\n{inspect.getdoc(method)}\n```\n")
        return "\n".join(parts)

    return f"""<!-- made from the docstrings by docs/make_env_pages.py -->
# Both forms of an environment

`gym.make` wraps the scalar form: what Gymnasium does not know, such as `get_state`, is at `env.unwrapped`. The native
vector form (`gym.make_vec`) is not wrapped.

## Scalar form

{methods(pg.envs.PlacementEnv)}
## Native vector form

```
{inspect.getdoc(pg.envs.PlacementVectorEnv)}
```

{methods(pg.envs.PlacementVectorEnv)}"""


def schema() -> str:
    """The page of the observation, which is the part of the source that names it."""
    source = inspect.getsource(observation)
    part = source[source.index("STATIC = (") : source.index("class _Array")].strip()
    return f"""<!-- made from placement_gym/envs/observation.py by docs/make_env_pages.py -->
# The observation

{inspect.getdoc(observation)}

```python
{part}
```

## The flat form

`observation="flat"` is one row of numbers:

```
{inspect.getdoc(observation.flat_observation)}
```

## Tables

```
{inspect.getdoc(observation.table)}
```
"""


def pages() -> dict[str, str]:
    """Every page by file name."""
    ids = sorted(env_id for env_id in gym.registry if env_id.startswith("placement_gym/"))
    made = {f"{env_id.split('/')[1]}.md": page(env_id) for env_id in ids}
    return {**made, "observation.md": schema(), "forms.md": forms()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)

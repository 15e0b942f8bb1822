"""Sb3VecEnv: the native vector form for Stable-Baselines3, which takes no Gymnasium `VectorEnv`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from placement_gym.envs import PlacementVectorEnv
from placement_gym.errors import InvalidOption

Indices = int | Sequence[int] | None


class Sb3VecEnv(VecEnv):  # type: ignore[misc]
    """Stable-Baselines3's `VecEnv` over a native vector form; much faster than `DummyVecEnv` over scalar forms.

    Episodes begin anew in the step that ends them; `infos[i]["terminal_observation"]` is then the last observation, and
    the other keys are those of the scalar form's last info. `env_method("action_masks")` serves sb3-contrib.

    Args:
        vec_env: The native vector form, with `autoreset_mode="SAME_STEP"` and no wrapper. It is used by nobody else.

    Attributes:
        vec_env: The native vector form.

    Raises:
        InvalidOption: Another vector environment, or another autoreset mode.
    """

    def __init__(self, vec_env: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(vec_env, PlacementVectorEnv):
            raise InvalidOption(f"vec_env is a {type(vec_env).__name__}; expected a native vector form, unwrapped")
        if vec_env.autoreset_mode != AutoresetMode.SAME_STEP:
            raise InvalidOption(f"autoreset_mode is {vec_env.autoreset_mode.name}; expected SAME_STEP")
        self.vec_env = vec_env
        self._actions: NDArray[np.int64] = np.zeros(vec_env.num_envs, np.int64)
        super().__init__(vec_env.num_envs, vec_env.single_observation_space, vec_env.single_action_space)

    def reset(self) -> Any:  # noqa: ANN401
        """Begins all episodes, with the seeds and options that were set since the last time.

        Raises:
            InvalidOption: Options that differ from row to row.
        """
        if any(one != self._options[0] for one in self._options):
            raise InvalidOption("set_options has different options for the rows; expected the same for all")
        seeds = None if all(one is None for one in self._seeds) else list(self._seeds)
        seen, _ = self.vec_env.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return seen

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """(observations, rewards float32 [B], which episodes ended bool [B], infos) of the step."""
        seen, rewards, terminated, truncated, said = self.vec_env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated | truncated).tolist():
            for name, values in said["final_info"].items():
                if not name.startswith("_"):
                    infos[row][name] = values[row].copy()
            infos[row]["terminal_observation"] = said["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return seen, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Closes the native vector form."""
        self.vec_env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """For each of those rows, the scalar form's attribute of that name; see `PlacementVectorEnv.call`.

        Raises:
            AttributeError: There is none, which is what `has_attr` waits for.
        """
        return self.env_method(attr_name, indices=indices)

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:  # noqa: ANN401, ARG002
        """Not offered: options hold for all rows and do not change.

        Raises:
            InvalidOption: Always.
        """
        self.vec_env.set_attr(attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **options: Any) -> list[Any]:  # noqa: ANN401
        """For each of those rows, what the scalar form's method of that name gives; see `PlacementVectorEnv.call`.

        Raises:
            AttributeError: There is none.
        """
        try:
            found = self.vec_env.call(method_name, *args, **options)
        except InvalidOption as error:
            raise AttributeError(str(error)) from error
        return [found[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:  # noqa: ARG002
        """No row is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A Gantt chart of each row, under the render mode "rgb_array"."""
        return self.vec_env.render() or [None] * self.num_envs

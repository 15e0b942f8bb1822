"""Checkpoints: a learner's state, with what it belongs to; written whole or not at all."""

from pathlib import Path
from typing import Any

import torch

from placement_gym.errors import CheckpointMismatch, InvalidFile
from placement_gym.files import replacing


def save_checkpoint(path: Path, *, agent: str, fingerprint: str, state: dict[str, Any]) -> None:
    """Writes `state` for the agent and problem named.

    Raises:
        InvalidFile: The folder does not exist or cannot be written.
    """
    with replacing(path) as temporary:
        torch.save({"agent": agent, "fingerprint": fingerprint, "state": state}, temporary)


def load_checkpoint(path: Path, *, agent: str, fingerprint: str | None) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote; for any problem where `fingerprint` is None.

    Raises:
        InvalidFile: No such file, or not a checkpoint.
        CheckpointMismatch: It belongs to another agent or problem.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        found, state = (data["agent"], data["fingerprint"]), data["state"]
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such checkpoint") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidFile(f"{path}: not a checkpoint, or truncated ({reason})") from error
    if found[0] != agent:
        raise CheckpointMismatch(f"{path} is a checkpoint of agent {found[0]!r}; expected {agent!r}")
    if fingerprint is not None and found[1] != fingerprint:
        raise CheckpointMismatch(
            f"{path} is a checkpoint of another problem: fingerprint {found[1][:12]}..., expected {fingerprint[:12]}..."
        )
    assert isinstance(state, dict)
    return state

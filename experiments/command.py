"""command: a Hydra main whose mistakes of the user are one line on stderr and an exit code."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from placement_gym.contention import register_installed
from placement_gym.errors import PlacementGymError

CONF = Path(__file__).resolve().parents[1] / "conf"
FAILED, USAGE, INTERRUPTED = 1, 2, 130
USER_ERRORS = (PlacementGymError, HydraException, OmegaConfBaseException)
# What Hydra and OmegaConf add to a message for their own developers.
INTERNALS = re.compile(r"\s*(Config search path:|full_key:|object_type=|See https://hydra\.cc).*", re.DOTALL)

Task = Callable[[DictConfig], int]
Main = Callable[[Sequence[str] | None], int]


def one_line(error: BaseException) -> str:
    """What went wrong, in one line; an error raised while Hydra built an object is shown as itself."""
    cause = error.__cause__
    if isinstance(error, InstantiationException) and cause is not None:
        if isinstance(cause, PlacementGymError | InstantiationException):
            return one_line(cause)
        target = str(error).partition(":")[0]
        return " ".join(f"{target}: {type(cause).__name__}: {cause}".split())
    return " ".join(INTERNALS.sub("", str(error)).split()) or type(error).__name__


@contextmanager
def _command_line(argv: Sequence[str] | None) -> Iterator[bool]:
    """Hydra reads sys.argv, and raises instead of printing a traceback only if HYDRA_FULL_ERROR is set.

    Yields whether the user asked for the full error.
    """
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # An experiment's file says its command on line 1, where Hydra would want the package: so the override names it.
    given = [re.sub(r"^experiment=", "experiment@_global_=", x) for x in (before[1:] if argv is None else argv)]
    # Hydra's parser understands options only before or after all overrides.
    sys.argv = [before[0], *sorted(given, key=lambda argument: argument not in ("-m", "--multirun"))]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield full_error == "1"
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def command(config_name: str) -> Callable[[Task], Main]:
    """Makes `task` a command line over `conf/<config_name>.yaml`.

    The resulting `main(argv=None)` returns the exit code: that of the task (the worst one of a sweep), 1 for an error
    of the gym, 2 for a command line that does not compose, 130 after an interrupt. HYDRA_FULL_ERROR=1 shows tracebacks.
    """

    def decorate(task: Task) -> Main:
        def main(argv: Sequence[str] | None = None) -> int:
            codes: list[int] = []

            def job(config: DictConfig) -> None:
                # Caught here and not outside: Hydra would print a line of its own, and end a sweep at its first error.
                try:
                    register_installed()
                    codes.append(task(config))
                except USER_ERRORS as error:
                    if full_error:
                        raise
                    codes.append(
                        _report(config_name, error, USAGE if isinstance(error, MissingMandatoryValue) else FAILED)
                    )
                    _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))

            with _command_line(argv) as full_error:
                try:
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
                except KeyboardInterrupt:
                    print(f"{config_name}: interrupted", file=sys.stderr)
                    return INTERRUPTED
                except USER_ERRORS as error:
                    # What gets here is a command line that does not compose to a configuration.
                    if full_error:
                        raise
                    return _report(config_name, error, USAGE)
            return max(codes, default=0)

        return main

    return decorate


def _remove_if_empty(folder: Path) -> None:
    if folder != Path.cwd() and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _report(verb: str, error: BaseException, code: int) -> int:
    print(f"{verb}: error: {one_line(error)}", file=sys.stderr)
    return code

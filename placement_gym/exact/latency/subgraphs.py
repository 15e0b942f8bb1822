"""What `subgraphs`, the option of the exact methods for the latency, may be and what it restricts."""

from placement_gym.errors import InvalidOption


def check_subgraphs(objective: str, subgraphs: int) -> None:
    """Raises InvalidOption where the objective does not have so many subgraphs."""
    if subgraphs < 1 or (subgraphs > 1 and objective != "latency"):
        raise InvalidOption(f"subgraphs is {subgraphs}; expected >= 1, and 1 unless the objective is latency")


def kind_of(subgraphs: int) -> str:
    """The kind of placements that are searched (`Result.restricted_to`)."""
    return "one subgraph per accelerator" if subgraphs == 1 else f"{subgraphs} subgraphs per accelerator"

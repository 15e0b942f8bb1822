"""Rule: what the simulator assumes about queues, transfers and contention; named presets."""

from dataclasses import dataclass
from typing import Literal, get_args

from placement_gym.contention import CONTENTIONS
from placement_gym.errors import InvalidRule, unknown_name

Queue = Literal["fifo", "priority", "lifo"]
Transfers = Literal["edge", "tensor", "multicast"]
Instant = Literal["whole", "event"]
Latency = Literal["delays", "holds"]
Makespan = Literal["last_op", "last_event"]
Ties = Literal["edge_order", "op_name"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How ops and transfers take turns in a schedule. The default is physical: fifo, tensor, port, whole instants.

    Attributes:
        queue: Order in which a resource takes what is ready for it: `fifo` (readiness), `priority` (largest
            first, then readiness; a transfer has the largest priority among the ops it feeds), `lifo`.
        transfers: `edge` (each edge pays), `tensor` (one copy of a tensor to each device that needs it),
            `multicast` (one sending of a tensor reaches all devices that need it, in the time of the slowest).
        contention: Name of a rule of `contention.py`: `none`, `link` (one transfer at a time on each ordered pair),
            `egress` (one sending per device), `port` (each device sends one and receives one at a time),
            `half_duplex` (each device takes part in one transfer at a time), `nic` (as `port`, and the devices of a
            node share its network card), or one that was registered (docs/extending.md).
        instant: `whole` (all completions of an instant first, then the resources choose by the queue's order, again
            until nothing changes, as in textbooks) or `event` (each event in the order in which it was scheduled).

    The options below are there for the published simulators that the presets name; they need `instant="event"`.

    Attributes:
        device_hold_s: Seconds that a device slot stays taken after an op of non-zero duration.
        latency: `delays` (a transfer takes latency + bytes / bandwidth) or `holds` (it arrives after
            bytes / bandwidth and its channel stays taken for the latency).
        makespan: `last_op` (finish of the last op) or `last_event` (trailing holds included).
        ties: Out-edges of one op are handled in `edge_order` or by the name of the op they lead to (`op_name`,
            as strings compare). It matters only where two things happen at one instant.

    Raises:
        InvalidRule: An unknown option, a negative hold, or an option of published simulators with whole instants.
    """

    queue: Queue = "fifo"
    transfers: Transfers = "tensor"
    contention: str = "port"
    instant: Instant = "whole"
    device_hold_s: float = 0.0
    latency: Latency = "delays"
    makespan: Makespan = "last_op"
    ties: Ties = "edge_order"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidRule(unknown_name(name, getattr(self, name), choices))
        if not 0 <= self.device_hold_s < float("inf"):
            raise InvalidRule(f"device_hold_s is {self.device_hold_s}; expected finite seconds >= 0")
        if self.contention not in CONTENTIONS:
            raise InvalidRule(unknown_name("contention", self.contention, CONTENTIONS))
        published = (self.device_hold_s, self.latency, self.makespan, self.ties)
        if self.instant == "whole" and published != (0.0, "delays", "last_op", "edge_order"):
            raise InvalidRule(
                "device_hold_s, latency, makespan and ties are options of published simulators; they need "
                f'instant="event", got {self}'
            )


CHOICES: dict[str, tuple[str, ...]] = {
    "queue": get_args(Queue),
    "transfers": get_args(Transfers),
    "instant": get_args(Instant),
    "latency": get_args(Latency),
    "makespan": get_args(Makespan),
    "ties": get_args(Ties),
}

PRESETS: dict[str, Rule] = {
    "physical": Rule(),
    # GiPH (Hu et al., 2023) and DOPPLER (arXiv 2505.23131): every edge pays, nothing contends.
    "giph": Rule(transfers="edge", contention="none", instant="event"),
    # The physical rule with transfers contending per link only, as where every pair has a wire of its own.
    "link": Rule(contention="link"),
    # Placeto (Addanki et al., 2019) and Park: one outgoing bus per device whose latency is paid after arrival;
    # 5.7 microseconds between two ops; the makespan is the time of the last event; its event heap compares names.
    "placeto": Rule(
        transfers="multicast",
        contention="egress",
        instant="event",
        device_hold_s=5.7e-6,
        latency="holds",
        makespan="last_event",
        ties="op_name",
    ),
}


def resolve_rule(rule: "str | Rule") -> Rule:
    """The rule itself, or the preset of that name.

    Raises:
        InvalidRule: An unknown name (the message lists the known ones).
    """
    if isinstance(rule, Rule):
        return rule
    if rule not in PRESETS:
        raise InvalidRule(unknown_name("simulator rule", rule, PRESETS))
    return PRESETS[rule]

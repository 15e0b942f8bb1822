"""Rule: what the simulator assumes about queues, transfers and contention; named presets."""

from dataclasses import dataclass
from typing import Literal, get_args

from placement_gym.errors import InvalidRule, unknown_name

Queue = Literal["fifo", "priority", "lifo"]
Transfers = Literal["edge", "tensor", "multicast"]
Contention = Literal["none", "link", "egress", "port", "half_duplex"]
Latency = Literal["delays", "holds"]
Makespan = Literal["last_op", "last_event"]
Ties = Literal["edge_order", "op_name"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a schedule unfolds from a placement. The default is physical: fifo, tensor, port.

    Attributes:
        queue: Order in which a resource takes what is ready for it: `fifo` (readiness), `priority` (largest
            first, then readiness; a transfer has the largest priority among the ops it feeds), `lifo`.
        transfers: `edge` (each edge pays), `tensor` (one copy of a tensor to each device that needs it),
            `multicast` (one sending of a tensor reaches all devices that need it, in the time of the slowest).
        contention: `none`, `link` (one transfer at a time on each ordered pair), `egress` (one sending per
            device), `port` (each device sends one and receives one at a time), `half_duplex` (each device
            takes part in one transfer at a time).
        device_hold_s: Seconds that a device slot stays taken after an op of non-zero duration.
        latency: `delays` (a transfer takes latency + bytes / bandwidth) or `holds` (it arrives after
            bytes / bandwidth and its channel stays taken for the latency).
        makespan: `last_op` (finish of the last op) or `last_event` (trailing holds included).
        ties: Out-edges of one op are handled in `edge_order` or by the name of the op they lead to (`op_name`,
            as strings compare). It matters only where two things happen at one instant.

    Raises:
        InvalidRule: An unknown option or a negative hold.
    """

    queue: Queue = "fifo"
    transfers: Transfers = "tensor"
    contention: Contention = "port"
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


CHOICES: dict[str, tuple[str, ...]] = {
    "queue": get_args(Queue),
    "transfers": get_args(Transfers),
    "contention": get_args(Contention),
    "latency": get_args(Latency),
    "makespan": get_args(Makespan),
    "ties": get_args(Ties),
}

PRESETS: dict[str, Rule] = {
    "physical": Rule(),
    # GiPH (Hu et al., 2023) and DOPPLER (arXiv 2505.23131): every edge pays, nothing contends.
    "giph": Rule(transfers="edge", contention="none"),
    # The physical rule with transfers contending per link only, as where every pair has a wire of its own.
    "link": Rule(contention="link"),
    # Placeto (Addanki et al., 2019) and Park: one outgoing bus per device whose latency is paid after arrival;
    # 5.7 microseconds between two ops; the makespan is the time of the last event; its event heap compares names.
    "placeto": Rule(
        transfers="multicast",
        contention="egress",
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

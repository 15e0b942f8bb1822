"""add_port_rules: what two channels per transfer imply, for the constraint programme for the makespan.

With `port` or `half_duplex`, a transfer needs a channel at either end, and while it waits for the one, others may use
the other. The constraints of `TransferModel` allow waits that never happen in the simulator; these rule them out.
"""

from placement_gym.exact.makespan.model import Linear, Literal
from placement_gym.exact.makespan.transfers import Transfer, TransferModel


def add_port_rules(model: TransferModel, waiting_edges: set[int]) -> None:
    """Adds constraints that hold for rounded simulated schedules; there are none where a transfer has one channel.

    * Conservation: a transfer that does not start when its producer is done has a channel that is taken then. The same
      holds whenever a transfer that shares a channel with it is released: at these events the simulator starts what
      it can.
    * Overtaking: let transfer b start before transfer a, which was made ready first and shares one channel with b. A
      `fifo` queue would have started a, so the other channel of a is taken, by a third transfer.

    Ties are left free. Neither is required of multicasts to several readers.

    Args:
        model: Where to add them.
        waiting_edges: Edges of the transfers that conservation is required of; it takes the most constraints.
    """
    if model.shape not in ("port", "half_duplex"):
        return
    single = [(a, one) for a, one in enumerate(model.transfers) if len(one.readers) == 1]
    waiting = [(a, one) for a, one in single if one.edge in waiting_edges]
    for op in {one.op for _, one in waiting}:
        _add_conservation_at_end(model, op, [one for _, one in waiting if one.op == op])
    for c, other in enumerate(model.transfers):
        model.ops.deadline.check()
        _add_conservation_at_release(model, c, other, waiting)
        if model.rule.queue == "fifo" and len(other.readers) == 1:
            _add_overtaking(model, c, other, single)


class _Instant:
    """An instant, and which transfer has which channel at that instant.

    A channel is taken by a transfer that started no later and is released no earlier, both up to `slack`.
    """

    def __init__(self, model: TransferModel, at: Linear, holders: list[Transfer]) -> None:
        self.model, slack, cp = model, model.grid.slack, model.model
        self.busy: dict[int, Literal] = {}
        model.ops.deadline.check()
        for one in holders:
            self.busy[id(one)] = literal = cp.new_bool_var("")
            cp.add(one.start <= at + slack).only_enforce_if(literal)
            cp.add(at <= one.release + slack).only_enforce_if(literal)
        self._holders: dict[tuple[str, int], list[Literal]] = {}
        self._taken: dict[tuple[str, int], Literal] = {}

    def sending_taken(self, op: int) -> Literal:
        """False unless the channel for sending of the op's device is taken."""
        return self._channel_taken("send", op)

    def receiving_taken(self, op: int) -> Literal:
        """False unless the channel for receiving of the op's device is taken."""
        return self._channel_taken("receive", op)

    def _channel_taken(self, name: str, op: int) -> Literal:
        if (name, op) not in self._taken:
            self._taken[name, op] = literal = self.model.model.new_bool_var("")
            for d in range(self.model.problem.n_devices):
                on = self.model.ops.on(op, d)
                self.model.model.add_bool_or([~literal, ~on, *self._holders_of(name, d)])
        return self._taken[name, op]

    def _holders_of(self, name: str, device: int) -> list[Literal]:
        if (name, device) not in self._holders:
            # The first channel of a pair is the sender's, the second the receiver's.
            other = 0 if device else 1
            pairs = self.model.pairs
            channel = int(pairs[device, other, 0] if name == "send" else pairs[other, device, 1])
            users = self.model.channels[channel]
            self._holders[name, device] = [
                self.model.all_of([self.busy[id(one)], uses]) for one, uses in users if id(one) in self.busy
            ]
        return self._holders[name, device]


def _add_conservation_at_end(model: TransferModel, op: int, made: list[Transfer]) -> None:
    """A transfer that starts when its producer is done has its channels then itself."""
    instant = _Instant(model, model.ops.end[op], [c for c in model.transfers if not _is_over(model, c, op)])
    for one in made:
        taken = [instant.sending_taken(op), instant.receiving_taken(one.readers[0])]
        model.model.add_bool_or([~one.present, *taken])


def _add_conservation_at_release(
    model: TransferModel, c: int, other: Transfer, waiting: list[tuple[int, Transfer]]
) -> None:
    """A transfer that starts when another is released has its channels then itself."""
    instant: _Instant | None = None
    for a, one in waiting:
        if a == c or model.must_follow(one, other) or model.must_follow(other, one):
            continue
        instant = instant or _Instant(model, other.release, [t for t in model.transfers if t is not other])
        made_later = model.model.new_bool_var("")
        end = model.ops.end[one.op]
        model.model.add(other.release <= end + model.grid.slack).only_enforce_if(made_later)
        taken = [instant.sending_taken(one.op), instant.receiving_taken(one.readers[0])]
        for way in model.shared(other, one):
            given = [one.present, other.present, model.first(c, a), *way]
            model.model.add_bool_or([*(~literal for literal in given), made_later, *taken])


def _add_overtaking(model: TransferModel, b: int, other: Transfer, waiting: list[tuple[int, Transfer]]) -> None:
    """What transfers that were made ready before `other` wait for when it starts."""
    cp, same, slack = model.model, model.ops.same, model.grid.slack
    holders = [c for c in model.transfers if c is not other and not model.must_follow(c, other)]
    if not any(_may_pass(model, b, other, a, one) for a, one in waiting):
        return
    instant = _Instant(model, other.start, holders)
    for c in holders:
        # What has a channel at that instant keeps it, so it shares none with the one that starts.
        for way in model.shared(c, other):
            given = [instant.busy[id(c)], c.present, other.present, *way]
            cp.add_bool_or([~literal for literal in given])
    for a, one in waiting:
        if not _may_pass(model, b, other, a, one):
            continue
        made_earlier: Literal = ~model.ops.true
        if one.op != other.op:
            made_earlier = cp.new_bool_var("")
            ends = model.ops.end
            cp.add(ends[other.op] <= ends[one.op] + slack).only_enforce_if(made_earlier)
        (r,), (q,) = one.readers, other.readers
        ways = [
            (same(one.op, other.op), instant.receiving_taken(r)),
            (same(r, q), instant.sending_taken(one.op)),
        ]
        if model.shape == "half_duplex":
            ways += [
                (same(one.op, q), instant.receiving_taken(r)),
                (same(r, other.op), instant.sending_taken(one.op)),
            ]
        for way, taken in ways:
            given = [one.present, other.present, model.first(b, a), way]
            cp.add_bool_or([*(~literal for literal in given), made_earlier, taken])


def _may_pass(model: TransferModel, b: int, other: Transfer, a: int, one: Transfer) -> bool:
    """Whether transfer b may start before transfer a although a was made ready first."""
    if a == b or (one.op == other.op and b < a):
        return False
    return not model.must_follow(one, other) and not model.must_follow(other, one)


def _is_over(model: TransferModel, one: Transfer, op: int) -> bool:
    """Whether the op cannot end before the transfer is released."""
    readers_ahead = all(r == op or bool(model.reach.ahead[r, op]) for r in one.readers)
    return readers_ahead and not model.grid.after.any()

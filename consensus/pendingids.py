"""The pending ids of fair order: which logs hold them, and the masks that the rules go by.

What a block costs here follows what it adds and removes, not what waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from consensus.precedence import Precedence, bits

DEAD_BITS_MIN = 64
"""Bits of ids that are gone are dropped once they are these and more than those of pending ids."""


class Entry:
    """One pending id."""

    __slots__ = ("bit", "expires_ms", "height", "id", "open_number", "since_ms", "solid_ms")

    def __init__(self, id_: bytes, expires_ms: int) -> None:
        self.id = id_
        self.expires_ms = expires_ms
        self.bit = 0
        """Its place in the masks."""
        self.height = 0
        """Height of the block that gave it T logs; 0 before."""
        self.solid_ms: int | None = None
        """Time of the block that gave it S logs."""
        self.since_ms: int | None = None
        """Time of the block that gave it f + 1 logs."""
        self.open_number = 0
        """The batch of which it is the rest, or 0."""


class PendingIds:
    """Pending ids by name and by bit; a mask has one bit an id, in the order of appearance."""

    def __init__(self, threshold: int, replicas: int) -> None:
        self._threshold, self._replicas = threshold, replicas
        self.by_id: dict[bytes, Entry] = {}
        """In the order of their first appearance in committed logs."""
        self.logs: list[dict[bytes, Entry]] = [{} for _ in range(replicas)]
        """What each log holds of them, in its order."""
        self._forget_bits()

    def _forget_bits(self) -> None:
        self.graph = Precedence(self._threshold, self._replicas)
        self.entries: list[Entry] = []
        """By bit, some of them gone."""
        self._all = 0
        self.compared = 0
        """The ids in T logs."""
        self.solid = 0
        """The ids in S logs."""
        self.late = 0
        """The ids that have been solid for longer than the deadline, when that was last noted."""
        self.opened = 0
        """The ids that are the rest of a batch."""
        self._young: deque[Entry] = deque()
        """The other solid ids, by `solid_ms`; some of them gone."""

    def add(self, id_: bytes, expires_ms: int) -> Entry:
        """Take in an id that no log holds yet."""
        entry = self.by_id[id_] = Entry(id_, expires_ms)
        self._give_bit(entry)
        return entry

    def _give_bit(self, entry: Entry) -> None:
        entry.bit = self.graph.new()
        self.entries.append(entry)
        self._all |= 1 << entry.bit

    def append(self, log: int, entries: Sequence[Entry]) -> None:
        """Tell the masks what was appended to `logs[log]`."""
        self.graph.extend(log, [entry.bit for entry in entries])

    def support(self, entry: Entry) -> int:
        """Return how many logs hold an id."""
        return self.graph.support(entry.bit)

    def compare(self, entering: Iterable[Entry]) -> None:
        """Let ids that have T logs be compared; of two, the lower (height, id) wins a tie."""
        for entry in sorted(entering, key=lambda entry: (entry.height, entry.id)):
            self.graph.enter(entry.bit)
            self.compared |= 1 << entry.bit

    def make_solid(self, entries: Iterable[Entry]) -> None:
        """Note ids in S logs, by `solid_ms`, all of them later than or with those before."""
        for entry in entries:
            self.solid |= 1 << entry.bit
            self._young.append(entry)

    def remove(self, gone: Iterable[Entry]) -> None:
        """Forget ids."""
        dead = 0
        for entry in gone:
            dead |= 1 << entry.bit
            del self.by_id[entry.id]
            for log in self.logs:
                log.pop(entry.id, None)
        self._all &= ~dead
        self.compared &= ~dead
        self.solid &= ~dead
        self.late &= ~dead
        self.opened &= ~dead

    def compact(self) -> None:
        """Drop the bits of ids that are gone, if they are too many."""
        if len(self.graph) > 2 * len(self.by_id) + DEAD_BITS_MIN:
            self._forget_bits()
            for entry in self.by_id.values():
                self._give_bit(entry)
            for i, log in enumerate(self.logs):
                self.graph.extend(i, [entry.bit for entry in log.values()])
            self.renew()

    def renew(self) -> None:
        """Make the masks anew from what the entries say."""
        self.compare(entry for entry in self.entries if entry.height)
        for entry in self.entries:
            if entry.open_number:
                self.opened |= 1 << entry.bit
        solid = [entry for entry in self.entries if entry.solid_ms is not None]
        self.make_solid(sorted(solid, key=lambda entry: entry.solid_ms or 0))

    def note_late(self, cutoff_ms: int) -> int | None:
        """Note which ids were solid before `cutoff_ms`; return when the next one became so."""
        young = self._young
        while young:
            entry = young[0]
            assert entry.solid_ms is not None
            if self.solid >> entry.bit & 1:
                if entry.solid_ms >= cutoff_ms:
                    return entry.solid_ms
                self.late |= 1 << entry.bit
            young.popleft()
        return None

    def missing_for(self, log: int) -> list[bytes]:
        """Return the ids that a log lacks, in the order of appearance."""
        return [self.entries[k].id for k in bits(self._all & ~self.graph.held[log])]

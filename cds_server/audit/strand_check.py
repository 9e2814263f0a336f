"""Reads one strand in order and says what is wrong with it.  Pure: rows in, findings out.

A row whose link does not follow from the one before is put aside until the chain holds again; then the
rows put aside are told apart: the same records in another order, or records that are not what was
recorded.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from cds_server.audit.chain import Strand, link_value, strand_name
from cds_server.audit.findings import Finding, Kind

_LONGEST_RUN = 1_000  # rows put aside; beyond that they are reported without being told apart
_CANDIDATES = 64
_SHIFTS = 8  # so many records taken out at one place are still told from rewritten ones


class Row(msgspec.Struct, frozen=True, gc=False):
    """A record as it is stored.  `digest` is of its payload, or the one a withheld record stands for."""

    seq: int
    record_id: str
    place: int
    link: bytes
    digest: bytes
    withheld: bool = False


class Seal(msgspec.Struct, frozen=True, order=True):
    """What a checkpoint says of a strand."""

    count: int
    checkpoint: int
    head: bytes
    closed: bool


@dataclass(slots=True)
class StrandCheck:
    """The state of reading one strand.

    Args:
        strand: where to begin: an empty strand, or one as a checkpoint sealed it.
        seals: what checkpoints say of it, by growing count.
    """

    strand: Strand
    seals: list[Seal]
    findings: list[Finding] = field(default_factory=list)
    first_id: str | None = None
    _place: int = 0
    _links: dict[bytes, Row | None] = field(default_factory=dict)
    _run: list[Row] = field(default_factory=list)
    _good: tuple[int, bytes] = (0, b"")
    _seq: int = 0
    _last: Row | None = None
    _since_seal: str = ""
    _next_seal: int = 0
    _shift: int = 0  # places by which rows were renumbered, after some were put in (-) or taken out (+)

    def __post_init__(self) -> None:
        self._place = self.strand.count
        self._links = {self.strand.head: None}
        self._good = (self.strand.count, self.strand.head)
        while self._next_seal < len(self.seals) and self.seals[self._next_seal].count <= self._place:
            self._next_seal += 1

    def read(self, rows: Iterable[Row]) -> None:
        """Takes the next rows, by growing place."""
        for row in rows:
            self._take(row)

    def finish(self) -> list[Finding]:
        """No more rows: the findings."""
        self._end_run()
        self._settle(None)
        end = self._place + self._shift
        missing = [seal for seal in self.seals[self._next_seal :] if seal.count > end]
        if missing:
            self._say(
                "tail removed",
                f"places {end + 1} to {missing[-1].count} are gone; checkpoint "
                f"{missing[0].checkpoint} had sealed place {missing[0].count}, the last one there is "
                f"{self._last_id()}",
            )
        closed = [seal.count for seal in self.seals if seal.closed]
        if closed and end > closed[-1]:
            self._say(
                "inserted",
                f"its writer ended at place {closed[-1]}; places {closed[-1] + 1} to {end} were "
                f"added, the last is event {self._last_id()}",
            )
        return self.findings

    # -- one row

    def _take(self, row: Row) -> None:
        if self.first_id is None:
            self.first_id = row.record_id
        if row.place == self._place and self._last is not None:
            self._take_rival(row, self._last)
            return
        self._settle(row)
        if row.place > self._place + 1:
            self._end_run()
            self._say_gap(row)
            self._accept(row)
            return
        before = self._before(row)
        if before is not None:
            if self._run:
                self._end_run()
            self._accept(row, before=before)
        else:
            if not self._run:
                self._good = (self._place, self._one_link())
            self._run.append(row)
            self._links = self._candidates()
            self._move(row)
            if len(self._run) > _LONGEST_RUN:
                self._end_run()
                self._links = {row.link: row}

    def _take_rival(self, row: Row, last: Row) -> None:
        """Of two at one place, which of them the next one follows decides, unless one has no right to it."""
        if self._value(self._good[1], row) != row.link:
            self._say("inserted", f"stands at place {row.place} beside event {last.record_id}", row)
        elif self._run:
            self._run.pop()
            self._say("inserted", f"stands at place {row.place} beside event {row.record_id}", last)
            self._accept(row, before=self._good[1])
        else:
            self._links[row.link] = row

    def _value(self, before: bytes, row: Row) -> bytes:
        return link_value(before, self.strand.number, row.place + self._shift, row.digest)

    def _before(self, row: Row) -> bytes | None:
        return next((link for link in self._links if self._value(link, row) == row.link), None)

    def _accept(self, row: Row, *, before: bytes | None = None) -> None:
        if not row.withheld:
            if row.seq < self._seq:
                self._say("reordered", "was stored before the one that precedes it in its strand", row)
            self._seq = row.seq
        if before is not None:
            self._good = (row.place - 1, before)
        self._links = {row.link: row}
        self._move(row)

    def _move(self, row: Row) -> None:
        self._place = row.place
        self._last = row
        if not self._since_seal:
            self._since_seal = row.record_id
        place = row.place + self._shift
        while self._next_seal < len(self.seals) and self.seals[self._next_seal].count <= place:
            seal = self.seals[self._next_seal]
            self._next_seal += 1
            if seal.count == place and seal.head != row.link and not self._run:
                self._say(
                    "changed",
                    f"checkpoint {seal.checkpoint} sealed something else at place {seal.count}: one or "
                    f"more of the events from {self._since_seal} to {row.record_id} were rewritten, with all "
                    "links after them",
                    row,
                )
            self._since_seal = ""

    def _settle(self, row: Row | None) -> None:
        """Of several rows at the last place, says which ones the next row does not follow."""
        rivals = [rival for rival in self._links.values() if rival is not None]
        if self._run or len(rivals) < 2:
            return
        genuine = self._before(row) if row is not None and row.place == self._place + 1 else None
        if genuine is None:
            sealed = [seal.head for seal in self.seals if seal.count == self._place]
            genuine = next((head for head in sealed if head in self._links), rivals[0].link)
        for rival in rivals:
            if rival.link != genuine:
                self._say("inserted", f"stands at place {rival.place} beside another event", rival)
        self._last = self._links[genuine]
        self._links = {genuine: self._last}
        self._seq = 0 if self._last is None else self._last.seq

    # -- rows put aside

    def _candidates(self) -> dict[bytes, Row | None]:
        """The links a next row may follow: any that is stored in the run, or should be."""
        place, link = self._good
        recent = self._run[-_CANDIDATES:]
        found: dict[bytes, Row | None] = {row.link: None for row in recent}
        for row in self._run:
            place += 1
            link = link_value(link, self.strand.number, place + self._shift, row.digest)
        found[link] = None
        return found

    def _end_run(self) -> None:
        run, self._run = self._run, []
        if not run:
            return
        self._links = dict.fromkeys([*self._links, run[-1].link])
        recorded = self._recorded_places(run)
        foreign = len(run) - len(recorded)
        if recorded:
            self._say_order(run, recorded)
            self._shift -= foreign
            return
        for shift in range(1, _SHIFTS + 1):
            if len(run) > 1 and self._renumbered(run, shift):
                first = run[0]
                self._say(
                    "removed",
                    f"{shift} before event {first.record_id} gone; it and those after it were renumbered",
                )
                self._shift += shift
                return
        for row in run:
            self._say("changed", f"it or its link is not what was recorded at place {row.place}", row)

    def _say_order(self, run: list[Row], recorded: dict[int, int]) -> None:
        put_in = 0
        for position, row in enumerate(run):
            if position not in recorded:
                put_in += 1
                self._say("inserted", f"stands at place {row.place}, where another was recorded", row)
            elif recorded[position] != row.place + self._shift - put_in:
                place = recorded[position]
                self._say("reordered", f"stands at place {row.place}, was recorded at {place}", row)

    def _recorded_places(self, run: list[Row]) -> dict[int, int]:
        """The places at which rows of the run were recorded, as far as their own links prove it."""
        links = {row.link for row in run}
        place, link = self._good[0] + self._shift, self._good[1]
        places: dict[int, int] = {}
        left = list(range(len(run)))
        while left:
            place += 1
            for position in left:
                value = link_value(link, self.strand.number, place, run[position].digest)
                if value in links:
                    places[position], link = place, value
                    left.remove(position)
                    break
            else:
                break
        return places

    def _renumbered(self, run: list[Row], shift: int) -> bool:
        return all(
            link_value(before.link, self.strand.number, row.place + self._shift + shift, row.digest)
            == row.link
            for before, row in pairwise(run)
        )

    # -- words

    def _one_link(self) -> bytes:
        return next(iter(self._links))

    def _last_id(self) -> str:
        return "none" if self._last is None else self._last.record_id

    def _say_gap(self, row: Row) -> None:
        first, last = self._place + 1, row.place - 1
        places = f"place {first} is" if first == last else f"places {first} to {last} are"
        self._say("removed", f"{places} missing between events {self._last_id()} and {row.record_id}")

    def _say(self, kind: Kind, text: str, row: Row | None = None) -> None:
        strand = f"strand {strand_name(self.strand.number)}"
        if row is None:
            self.findings.append(Finding(kind, strand, text))
        else:
            self.findings.append(Finding(kind, f"event {row.record_id}", f"{text} ({strand})"))


def digest_of(payload: str) -> bytes:
    """SHA-256 of a payload's bytes."""
    return hashlib.sha256(payload.encode("utf-8", "surrogatepass")).digest()

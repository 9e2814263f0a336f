"""How the record of enrolled cases was found: what health, metrics and log say of it."""

import msgspec


class EnrolledState(msgspec.Struct, frozen=True, omit_defaults=True, rename={"identity": "id"}):
    """How many `cases` count and under which `identity` answers name them.

    `damaged_lines` are the numbers of lines that cannot be read, `left_out` the enrolments that do not count
    because of these or because they do not open; `reason` says what is wrong, empty when nothing is.
    """

    cases: int
    identity: str = ""
    damaged_lines: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()
    reason: str = ""


NOTHING_ENROLLED = EnrolledState(0)

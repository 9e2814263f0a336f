"""Where two answers differ, as paths into their JSON; the values only for those who may see them."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place: `path` like ``cards[0].summary``, how it changed, and both values as JSON."""

    path: str
    change: Literal["changed", "added", "removed", "order"]
    before: str = ""
    after: str = ""


def differences(before: bytes, after: bytes, *, most: int = 200) -> tuple[Difference, ...]:
    """The places where two JSON documents differ, in order, at most `most`.

    Documents of equal content but other bytes (the order of members) differ in one place, the root.
    """
    old, new = msgspec.json.decode(before), msgspec.json.decode(after)
    found: list[Difference] = []
    for difference in _walk(old, new, ""):
        found.append(difference)
        if len(found) == most:
            break
    if not found and before != after:
        found.append(Difference("$", "order"))
    return tuple(found)


def without_values(found: tuple[Difference, ...]) -> tuple[Difference, ...]:
    """The same places, with nothing of what stands there."""
    return tuple(Difference(one.path, one.change) for one in found)


def _walk(old: Any, new: Any, path: str) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{path}.{name}" if path else name
            if name not in new:
                yield Difference(inner, "removed", before=_text(old[name]))
            elif name not in old:
                yield Difference(inner, "added", after=_text(new[name]))
            else:
                yield from _walk(old[name], new[name], inner)
    elif isinstance(old, list) and isinstance(new, list):
        for number in range(max(len(old), len(new))):
            inner = f"{path}[{number}]"
            if number >= len(new):
                yield Difference(inner, "removed", before=_text(old[number]))
            elif number >= len(old):
                yield Difference(inner, "added", after=_text(new[number]))
            else:
                yield from _walk(old[number], new[number], inner)
    elif type(old) is not type(new) or old != new:
        yield Difference(path or "$", "changed", _text(old), _text(new))


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()

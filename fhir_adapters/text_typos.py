"""Correction of one slip of the pen in a long word of our own tables, and of nothing less certain.

Responsible for "abdomnal" becoming "abdominal"; short words, words of ordinary prose and words with
two possible corrections are left as they are.
"""

from collections.abc import Iterable


class Corrector:
    """Targets by what is left of them when one letter is dropped (the symmetric-delete idea of SymSpell)."""

    #: Shortest word (letters) that is corrected.
    SHORTEST = 6

    __slots__ = ("_common", "_shortened", "_targets")

    def __init__(self, targets: Iterable[str], common: frozenset[str]) -> None:
        self._common = common
        self._targets = frozenset(one for one in targets if len(one) >= self.SHORTEST and one.isalpha())
        # An ambiguous shortening is kept as a tuple; most have one origin.
        self._shortened: dict[str, tuple[str, ...]] = {}
        for target in sorted(self._targets):
            for place in range(1, len(target)):
                short = target[:place] + target[place + 1 :]
                origins = self._shortened.get(short, ())
                if target not in origins:
                    self._shortened[short] = (*origins, target)

    def correct(self, word_stem: str, word: str) -> str | None:
        """The only target one edit (insertion, deletion, substitution, swap) from `word_stem`, else `None`.

        The first letter must be right: people rarely miss it, and other words often differ there.
        """
        if (
            word in self._common
            or word_stem in self._common
            or not word_stem.isalpha()
            or len(word_stem) > 30
        ):
            return None
        found = set(self._shortened.get(word_stem, ()))
        for place in range(1, len(word_stem)):
            short = word_stem[:place] + word_stem[place + 1 :]
            if short in self._targets:
                found.add(short)
            for target in self._shortened.get(short, ()):
                if len(target) == len(word_stem) and _one_edit(target, word_stem):
                    found.add(target)
        return found.pop() if len(found) == 1 else None


def _one_edit(one: str, other: str) -> bool:
    """Whether two words of equal length differ in one letter or one swap of neighbours."""
    differ = [at for at in range(len(one)) if one[at] != other[at]]
    if len(differ) == 1:
        return True
    return (
        len(differ) == 2
        and differ[1] == differ[0] + 1
        and one[differ[0]] == other[differ[1]]
        and one[differ[1]] == other[differ[0]]
    )

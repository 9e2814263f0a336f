"""Age bands of the paediatric tables (``data/age_bands.csv``), in days: which variant a child reads.

Responsible for the bands only; the points are in the points tables.
"""

from bisect import bisect_right

from models.rules.data_rows import read_rows

FILE = "age_bands.csv"
COLUMNS = ("score", "parameter", "variant", "from_days", "source")


class AgeBands:
    """Bands by score and parameter (``*`` for all parameters of a score)."""

    __slots__ = ("_bands",)

    def __init__(self, bands: dict[tuple[str, str], tuple[tuple[int, ...], tuple[str, ...]]]) -> None:
        self._bands = bands

    @classmethod
    def load(cls) -> "AgeBands":
        """Read and check the packaged table; raises `RulesInvalid`."""
        found: dict[tuple[str, str], tuple[list[int], list[str]]] = {}
        for row in read_rows(FILE, COLUMNS):
            starts, variants = found.setdefault((row.text("score"), row.text("parameter")), ([], []))
            start = row.integer("from_days")
            if (not starts and start != 0) or (starts and start <= starts[-1]):
                raise row.error("bands start at 0 days and rise")
            row.text("source")
            starts.append(start)
            variants.append(row.text("variant"))
        return cls({key: (tuple(starts), tuple(variants)) for key, (starts, variants) in found.items()})

    def variant(self, score: str, parameter: str, age_days: int) -> str:
        """The band of an age in days; negative ages (a clock ahead) count as newborn."""
        starts, variants = self._bands.get((score, parameter)) or self._bands[score, "*"]
        return variants[bisect_right(starts, max(age_days, 0)) - 1]

    def variants(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The variants of every score and parameter, for checking that the points tables hold them."""
        return {key: variants for key, (_, variants) in self._bands.items()}

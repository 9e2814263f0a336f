"""How long what was kept is kept."""

from datetime import datetime


def cutoff(now: datetime, years: int) -> datetime:
    """What was made before this moment is older than `years` calendar years."""
    try:
        return now.replace(year=now.year - years)
    except ValueError:  # 29 February
        return now.replace(year=now.year - years, day=28)

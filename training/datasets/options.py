"""What a dataset of real visits is made with: when the decision is, how long a diagnosis may take.

All of it is written into ``dataset.json``.
"""

import msgspec

from training.datasets.format import SETTINGS


class CohortOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `fhir.build_from_ndjson`.

    `decision_hours` after the start of a visit its chart is read (0 to 168); `window_days` after the visit
    a confirmed diagnosis still is its label (0 to 365); `settings` are the visits that count;
    `follow_ups` takes the diagnosis of a later visit in the window where the visit has none of its own.
    """

    decision_hours: float = 6.0
    window_days: float = 30.0
    settings: tuple[str, ...] = ("emergency", "inpatient", "ambulatory", "home", "virtual")
    follow_ups: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decision_hours <= 168:
            raise ValueError("decision_hours: give 0 to 168 hours")
        if not 0 <= self.window_days <= 365:
            raise ValueError("window_days: give 0 to 365 days")
        unknown = sorted(set(self.settings) - set(SETTINGS))
        if unknown or not self.settings:
            raise ValueError(f"settings: choose among {', '.join(SETTINGS)}")

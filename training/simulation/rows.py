"""Recorded patients as feature rows, thousands at a time; the same numbers as reading their Bundles gives.

Responsible for the settling of findings (`fhir_adapters.features`) as matrix arithmetic.  That both ways
agree is a test over whole simulated Bundles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack

from fhir_adapters.features import ABSENT, COMPLAINT, LIMIT, PRESENT, UNSURE, FeatureReader
from training.simulation.effects import Effect, Effects
from training.simulation.population import AGE_ENDS, Patients, normals
from training.simulation.recording import COMPLAINT as SAID_COMPLAINT
from training.simulation.recording import DENIED_CODE, UNSURE_CODE, Recorded
from training.simulation.recording import PRESENT as SAID_PRESENT
from training.simulation.tables import F32, F64, Tables

CHUNK = 4000
NOT_ZERO = 1e-4


@dataclass(frozen=True)
class Rows:
    """Feature rows [N, F] and what is stated of findings: `said` [N, V] most specific present, `denied`.

    `emergency`, `band` (-1 unknown) and `sex` (1 female, -1 male, 0 unknown) are what priors need.
    """

    features: csr_matrix
    said: csr_matrix
    denied: csr_matrix
    emergency: NDArray[np.bool_]
    band: NDArray[np.int8]
    sex: NDArray[np.int8]

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of the rows, in the order given."""
        return Rows(
            self.features[rows],
            self.said[rows],
            self.denied[rows],
            self.emergency[rows],
            self.band[rows],
            self.sex[rows],
        )


def stack_rows(parts: list[Rows]) -> Rows:
    """The rows of several parts, one after the other."""
    return Rows(
        vstack([part.features for part in parts], format="csr"),
        vstack([part.said for part in parts], format="csr"),
        vstack([part.denied for part in parts], format="csr"),
        np.concatenate([part.emergency for part in parts]),
        np.concatenate([part.band for part in parts]),
        np.concatenate([part.sex for part in parts]),
    )


class RowMaker:
    """Makes rows for one set of tables and effects."""

    def __init__(self, tables: Tables, effects: Effects, reader: FeatureReader) -> None:
        self._tables = tables
        self._effects = effects
        self._reader = reader
        above = tables.schema.above
        width = len(above)
        self._above = np.zeros((width, width), dtype=np.float32)
        for number, higher in enumerate(above):
            self._above[number, list(higher)] = 1.0

    def rows(self, patients: Patients, recorded: Recorded) -> Rows:
        """The rows of recorded patients."""
        count = len(patients)
        parts = [
            self._chunk(patients, recorded, slice(start, min(start + CHUNK, count)))
            for start in range(0, count, CHUNK)
        ]
        return stack_rows(parts)

    def _chunk(self, patients: Patients, recorded: Recorded, rows: slice) -> Rows:
        own, denied, risks = self._statements(recorded, rows)
        settled, said, denials = self._settle(own, denied)
        risks[risks == 2] = 0
        person, band, sex = self._person(patients, recorded, rows)
        features = hstack(
            [
                csr_matrix(settled),
                csr_matrix(risks),
                *[csr_matrix(block) for block in self._values(patients, recorded, rows)],
                csr_matrix(recorded.results[rows].astype(np.float32)),
                csr_matrix(person),
            ],
            format="csr",
            dtype=np.float32,
        )
        return Rows(features, csr_matrix(said), csr_matrix(denials), patients.setting[rows] == 1, band, sex)

    def _statements(self, recorded: Recorded, rows: slice) -> tuple[F32, NDArray[np.bool_], F32]:
        """What is said: findings present (by how), findings denied, risks."""
        stated = recorded.stated[rows]
        count = stated.shape[0]
        effects = self._effects
        own = np.zeros((count, stated.shape[1]), dtype=np.float32)
        denied = np.zeros((count, stated.shape[1]), dtype=bool)
        risks = np.full((count, len(self._tables.schema.risks)), 0.0, dtype=np.float32)
        level = recorded.consciousness[rows]
        awake = np.zeros((count, effects.consciousness.present.shape[0]), dtype=np.float32)
        awake[np.flatnonzero(level >= 0), level[level >= 0]] = 1.0
        pregnant = recorded.pregnant[rows]
        for said, effect, value in (
            (stated == DENIED_CODE, effects.denied, ABSENT),
            (recorded.risks[rows] == -1, effects.risk_denied, ABSENT),
            (pregnant[:, None] == -1, effects.not_pregnant, ABSENT),
            (stated == UNSURE_CODE, effects.unsure, UNSURE),
            (stated == SAID_PRESENT, effects.present, PRESENT),
            (recorded.risks[rows] == 1, effects.risk, PRESENT),
            (recorded.drugs[rows], effects.drug, PRESENT),
            (awake, effects.consciousness, PRESENT),
            (pregnant[:, None] == 1, effects.pregnant, PRESENT),
            (stated == SAID_COMPLAINT, effects.complaint, COMPLAINT),
        ):
            self._apply(csr_matrix(said, dtype=np.float32), effect, value, own, denied, risks)
        return own, denied, risks

    @staticmethod
    def _apply(
        said: csr_matrix, effect: Effect, value: float, own: F32, denied: NDArray[np.bool_], risks: F32
    ) -> None:
        present = (said @ effect.present).toarray() > 0
        own[present] = np.maximum(own[present], value)
        denied |= (said @ effect.denied).toarray() > 0
        values = effect.risks.copy()
        for level in (ABSENT, UNSURE, PRESENT, COMPLAINT):
            values.data = (effect.risks.data == level).astype(np.float32)
            hit = (said @ values).toarray() > 0
            # What is present outweighs what is denied, a surer statement an unsure one.
            risks[hit] = np.where(risks[hit] == 0, level, np.maximum(risks[hit], level))

    def _settle(self, own: F32, denied: NDArray[np.bool_]) -> tuple[F32, F32, F32]:
        implied = np.zeros_like(own)
        for value in (UNSURE, PRESENT, COMPLAINT):
            implied[((own == value).astype(np.float32) @ self._above) > 0] = value
        settled = np.maximum(own, implied)
        said = np.where(implied > 0, 0.0, own).astype(np.float32)
        denials = denied & (settled == 0)
        below = (denials.astype(np.float32) @ self._above.T) > 0
        settled[(denials | below) & (settled == 0)] = ABSENT
        return settled, said, denials.astype(np.float32)

    def _values(self, patients: Patients, recorded: Recorded, rows: slice) -> list[F32]:
        schema = self._tables.schema
        measured = recorded.measured[rows]
        count = measured.shape[0]
        distance = np.zeros(measured.shape, dtype=np.float64)
        moved = [np.zeros((count, len(schema.trends))), np.zeros((count, len(schema.trends)))]
        column = {place: number for number, place in enumerate(schema.trends)}
        for place in range(len(schema.analytes)):
            now = self._distance(patients, recorded, rows, place, patients.values[rows, place])
            distance[:, place] = now
            if place not in column:
                continue
            number = column[place]
            for block, old in zip(moved, (recorded.day_old, recorded.week_old), strict=True):
                change = now - self._distance(patients, recorded, rows, place, old[rows, number])
                change = np.where(change == 0, NOT_ZERO, change)
                block[:, number] = np.where(np.isnan(change), 0.0, change)
        return [
            (distance * measured).astype(np.float32),
            measured.astype(np.float32),
            moved[0].astype(np.float32),
            moved[1].astype(np.float32),
        ]

    def _distance(self, patients: Patients, recorded: Recorded, rows: slice, place: int, values: F64) -> F64:
        """`AnalyteFeature.distance` for many: of unknown age and sex the adult man's normal counts."""
        analyte = self._tables.schema.analytes[place]
        age = np.where(recorded.age_known[rows], read_age(patients.age[rows]), 30.0 + 1e6)
        female = patients.female[rows] & recorded.sex_known[rows]
        normal, spread = normals(self._tables, place, age, female)
        if analyte.log:
            found = np.log(np.maximum(values, 1e-6) / normal) / np.log(spread)
        else:
            found = (values - normal) / spread
        found = np.clip(found, -LIMIT, LIMIT)
        return np.asarray(np.where(np.abs(found) < NOT_ZERO, NOT_ZERO, found))

    def _person(
        self, patients: Patients, recorded: Recorded, rows: slice
    ) -> tuple[F32, NDArray[np.int8], NDArray[np.int8]]:
        age = read_age(patients.age[rows])
        known = recorded.age_known[rows]
        count = len(age)
        reader = self._reader
        person = np.zeros((count, reader.size - reader.at_person), dtype=np.float32)
        person[:, 0] = np.where(known, np.log1p(age) - 3.3, 0.0)
        sex = np.where(recorded.sex_known[rows], np.where(patients.female[rows], 1, -1), 0)
        person[:, 1] = sex
        person[:, 2] = recorded.pregnant[rows]
        person[:, 3] = np.where(patients.setting[rows] == 1, 1.0, -1.0)
        days = recorded.duration[rows]
        duration = np.log10(np.clip(np.maximum(days, 0.5), 0.5, 20000.0))
        duration = np.where(np.abs(duration) < NOT_ZERO, NOT_ZERO, duration)
        person[:, 4] = np.where((days >= 0) & known, duration, 0.0)
        band = np.minimum(np.searchsorted(AGE_ENDS, age, side="right"), len(AGE_ENDS) - 1)
        person[:, 5] = (recorded.stated[rows] == SAID_COMPLAINT).any(axis=1)
        first = reader.at_bands - reader.at_person
        person[np.arange(count), first + band] = known
        return person, np.where(known, band, -1).astype(np.int8), sex.astype(np.int8)


def read_age(age: F64) -> F64:
    """Age as a chart has it: whole days."""
    return np.asarray(np.floor(age * 365.25) / 365.25)

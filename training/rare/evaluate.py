"""Measures the rare-disease engine on published cases and everyday patients.

Responsible for asking the engine and for gathering ranks, alarms, latency and memory.  With `folds`,
each case is ranked by a second stage that has not seen its disease.
"""

import gzip
import json
import math
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from models.rare.alarm import Alarm
from models.rare.engine import RareEngine
from models.rare.enrolment import EnrolledCase
from models.rare.phenotype import Phenotype
from models.rare.reranker import Reranker
from models.rare.terms import Arrays
from training.rare.cases import Case, CasesInvalid, Negative
from training.rare.measures import auroc, calibration_error, quantile, rank_of, ranking, sensitivity

SHOTS = (1, 3, 5, 10)
DRAWS = 5
FEWEST = 7
FALSE_ALARMS = (0.01, 0.02, 0.05, 0.10)


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything measured, as plain values for JSON."""

    figures: dict[str, Any]


def equivalences(directory: Path | None) -> dict[str, str]:
    """OMIM, ORPHA and MONDO id → class of one disease, from the reference scorer's files; empty without."""
    if directory is None:
        return {}
    same: dict[str, str] = {}
    try:
        for name in ("universe.jsonl.gz", "equiv_extra.jsonl.gz"):
            with gzip.open(directory / name, "rt", encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    same[row["id"]] = row["mondo"] or row["id"]
    except (OSError, ValueError, KeyError):
        raise CasesInvalid(f"{directory.name}: the reference scorer's equivalences cannot be read") from None
    return same


class Judge:
    """Asks the engine about cases and keeps what it answers."""

    def __init__(
        self,
        arrays: Arrays,
        same: Mapping[str, str],
        folds: tuple[Arrays, ...] = (),
        fold_of: Mapping[str, int] | None = None,
    ) -> None:
        self.engine = RareEngine.of(arrays)
        scorer = self.engine.scorer
        self._folds = [RareEngine(scorer, Reranker.of(each), Alarm.of(each)) for each in folds]
        self._fold_of = fold_of or {}
        self._same = same

    def fold(self, case: Case) -> int:
        """Which engine has not seen the case's disease; -1 is the whole one."""
        return self._fold_of.get(case.dx[0], -1) if self._folds else -1

    def engine_for(self, case: Case) -> RareEngine:
        """The engine that has not seen the case's disease; the whole one for a disease of no fold."""
        fold = self.fold(case)
        return self._folds[fold] if fold >= 0 else self.engine

    def enrolled(self, cases: Sequence[EnrolledCase]) -> dict[int, RareEngine]:
        """The engines by fold, with enrolled cases."""
        engines = {-1: self.engine.enrolled(cases)}
        for number, engine in enumerate(self._folds):
            engines[number] = engine.enrolled(cases)
        return engines

    def rank(self, case: Case, engine: RareEngine, unread: frozenset[str], extra: frozenset[str]) -> float:
        """The rank of the case's disease; `extra` ids count as right too (an enrolled one)."""
        ranked = engine.rank(engine.shortlist(case.phenotype(), unread))
        ids: list[str] = []
        for owner in ranked.shortlist.owner[ranked.order[:100]].tolist():
            ids += engine.ids(owner)
        right = {self._same.get(each, each) for each in right_ids(case)} | extra
        return rank_of(ids, frozenset(right), self._same)


def right_ids(case: Case) -> list[str]:
    """The ids that are the case's disease, as the engine writes them."""
    return [*case.dx, *(each.replace("Orphanet:", "ORPHA:") for each in case.dx_equiv if each)]


def measure_ranking(judge: Judge, cases: Sequence[Case], progress: Progress) -> dict[str, Any]:
    """Ranks as shipped and with the case's own paper unread."""
    task = progress.add_task("ranking", total=len(cases))
    ranks: dict[bool, list[float]] = {False: [], True: []}
    cites = judge.engine.knowledge.evidence.citing
    for case in cases:
        progress.advance(task)
        engine, nothing = judge.engine_for(case), frozenset[str]()
        # A disease without annotations is never ranked; a paper nobody cites changes nothing.
        plain = judge.rank(case, engine, nothing, nothing) if case.reachable else math.inf
        cited_here = case.reachable and case.pmid is not None and len(cites(case.pmid)) > 0
        ranks[False].append(plain)
        ranks[True].append(
            judge.rank(case, engine, frozenset({case.pmid or ""}), nothing) if cited_here else plain
        )
    reach = [n for n, case in enumerate(cases) if case.reachable]
    clean = [n for n in reach if cases[n].own_pmid_in_hpoa is False]
    cited = [n for n in reach if cases[n].own_pmid_in_hpoa]

    def figures(chosen: list[int], masked: bool) -> dict[str, object]:
        return ranking([(ranks[masked][n], cases[n].dx[0]) for n in chosen])

    found_all: dict[str, Any] = {
        "clean: own paper not in the knowledge": figures(clean, False),
        "all reachable": figures(reach, False),
        "own paper in the knowledge (flatters)": figures(cited, False),
        "own paper in the knowledge, unread": figures(cited, True),
        "all reachable, own paper unread": figures(reach, True),
    }
    for low, high in ((1, 2), (3, 5), (6, 10), (11, 999)):
        chosen = [n for n in reach if low <= len(cases[n].observed) <= high]
        found_all[f"all reachable, {low}-{high if high < 999 else 'more'} findings"] = figures(chosen, False)
    return found_all


def measure_few_shot(judge: Judge, cases: Sequence[Case], progress: Progress) -> dict[str, Any]:
    """Diseases that the knowledge lacks, with some cases enrolled and the others asked."""
    by: dict[str, list[Case]] = {}
    for case in cases:
        if not case.reachable:
            by.setdefault(case.dx[0], []).append(case)
    diseases = {d: members for d, members in sorted(by.items()) if len(members) >= FEWEST}
    task = progress.add_task("few shots", total=len(SHOTS) * DRAWS * len(diseases))
    found: dict[str, Any] = {"diseases": len(diseases)}
    for shots in SHOTS:
        ranks: list[tuple[float, str]] = []
        elsewhere: list[tuple[float, str]] = []
        for draw in range(DRAWS):
            rng = random.Random(1000 * shots + draw)  # noqa: S311 - sampling, not secrets
            # All diseases are enrolled together: each patient competes with the others' cases too.
            picked = {
                d: rng.sample(range(len(members)), shots)
                for d, members in diseases.items()
                if len(members) > shots
            }
            enrolled = [
                EnrolledCase(f"NEW:{d}", diseases[d][n].phenotype(), f"case:{diseases[d][n].id}")
                for d, chosen in picked.items()
                for n in chosen
            ]
            engines = judge.enrolled(enrolled)
            for disease, chosen in picked.items():
                for n, case in enumerate(diseases[disease]):
                    if n not in chosen:
                        engine = engines[judge.fold(case)]
                        rank = judge.rank(case, engine, frozenset(), frozenset({f"NEW:{disease}"}))
                        ranks.append((rank, disease))
                        if case.pmid not in {diseases[disease][m].pmid for m in chosen}:
                            elsewhere.append((rank, disease))
                progress.advance(task)
        found[str(shots)] = ranking(ranks)
        found[f"{shots}, of other papers"] = ranking(elsewhere)
    return found


def measure_alarm(
    judge: Judge, cases: Sequence[Case], negatives: Sequence[Negative], progress: Progress
) -> dict[str, Any]:
    """Sensitivity at fixed shares of false alarms, calibration, and the decision at the threshold.

    The case's own paper is unread, and with folds the alarm asked has not seen the case's disease.
    """
    task = progress.add_task("alarm", total=len(cases) + len(negatives))

    def asked(engine: RareEngine, phenotype: Phenotype, unread: frozenset[str]) -> float:
        progress.advance(task)
        return engine.alarm(engine.shortlist(phenotype, unread)).probability

    values = [
        asked(judge.engine_for(case), case.phenotype(), frozenset({case.pmid} if case.pmid else ()))
        for case in cases
    ]
    calm = [asked(judge.engine, each.phenotype(), frozenset()) for each in negatives]
    reach = [v for v, case in zip(values, cases, strict=True) if case.reachable]
    three = [v for v, c in zip(values, cases, strict=True) if c.reachable and len(c.observed) >= 3]
    novel = [v for v, c in zip(values, cases, strict=True) if not c.reachable and len(c.observed) >= 3]
    found: dict[str, Any] = {
        "auroc": auroc(reach, calm),
        "ece": calibration_error(reach, calm, balanced=True),
        "ece_as_mixed": calibration_error(reach, calm, balanced=False),
        "decision": {
            "false_alarms": sum(v > 0.7 for v in calm) / len(calm),
            "sensitivity": sum(v > 0.7 for v in reach) / len(reach),
        },
    }
    for mode in sorted({each.mode for each in negatives}):
        mine = [v for v, each in zip(calm, negatives, strict=True) if each.mode == mode]
        found["decision"][f"false_alarms_{mode}"] = sum(v > 0.7 for v in mine) / len(mine)
    for share in FALSE_ALARMS:
        found[f"sensitivity_at_{share:g}"] = {
            "reachable": sensitivity(reach, calm, share)[0],
            "three_findings_or_more": sensitivity(three, calm, share)[0],
            "unknown_disease": sensitivity(novel, calm, share)[0],
            "threshold": sensitivity(reach, calm, share)[1],
        }
    return found


def measure_latency(judge: Judge, cases: Sequence[Case]) -> dict[str, Any]:
    """Milliseconds of processor time for one patient on one core, second stage included.

    Processor time of this process, so that other work on the machine does not count.
    """
    pool = sorted({term for case in cases for term in case.observed})
    rng = random.Random(7)  # noqa: S311 - sampling, not secrets
    found: dict[str, Any] = {}
    for size in (10, 30):
        patients = []
        rich = [case for case in cases if len(case.observed) >= 4] or list(cases)
        for _ in range(200):
            case = rng.choice(rich)
            terms = list(dict.fromkeys([*case.observed, *rng.sample(pool, min(size, len(pool)))]))[:size]
            patients.append(
                Phenotype(tuple(terms), case.excluded, case.sex, case.age_years, case.onset_years)
            )
        asked: tuple[tuple[str, Callable[[Phenotype], object]], ...] = (
            ("alarm only", lambda patient: judge.engine.alarm(judge.engine.shortlist(patient))),
            ("ranking", lambda patient: judge.engine.rank(judge.engine.shortlist(patient))),
            ("whole answer", judge.engine.assess),
        )
        for name, ask in asked:
            taken = []
            for number, patient in enumerate([*patients[:20], *patients]):
                start = time.process_time()
                ask(patient)
                if number >= 20:
                    taken.append(1000 * (time.process_time() - start))
            found[f"{name}, {size} findings"] = {"p50": quantile(taken, 0.5), "p95": quantile(taken, 0.95)}
    return found


def measure_memory(arrays: Arrays) -> dict[str, Any]:
    """Resident memory (MB) and time (s) that loading an engine adds to this process."""
    before, start = _resident(), time.process_time()
    engine = RareEngine.of(arrays)
    engine.assess(Phenotype(("HP:0001250",)))
    taken = time.process_time() - start
    return {"added_mb": _resident() - before, "load_s": taken, "peak_mb": _peak()}


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return math.nan
    return pages * resource.getpagesize() / 2**20


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evaluate(
    arrays: Arrays,
    cases: Sequence[Case],
    negatives: Sequence[Negative],
    same: Mapping[str, str],
    folds: tuple[tuple[Arrays, ...], dict[str, int]],
    console: Console,
) -> Measured:
    """All figures."""
    memory = measure_memory(arrays)
    judge = Judge(arrays, same, *folds)
    figures: dict[str, Any] = {"memory": memory, "cross_validated": bool(folds[0]), "cases": len(cases)}
    figures["latency_ms"] = measure_latency(judge, cases)
    with Progress(console=console) as progress:
        figures["ranking"] = measure_ranking(judge, cases, progress)
        figures["few_shot"] = measure_few_shot(judge, cases, progress)
        if negatives:
            figures["alarm"] = measure_alarm(judge, cases, negatives, progress)
    return Measured(figures)


def finite(value: object) -> object:
    """The same value with what JSON lacks (numpy's numbers, endless ones) made plain."""
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5) if math.isfinite(float(value)) else None
    return value

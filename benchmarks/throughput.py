"""The speed table: the product against the limit server, interleaved, medians of rounds.

For charts of 10 to 10,000 resources it measures requests a second (16 callers), latency with one
caller and with 64, CPU per request and memory per worker (PSS), durable audit included, and the ratio to
the limit server measured in the same round.  Machines are noisy: believe the ratios.

    python -m benchmarks.throughput --rounds 5 --write docs/benchmark.md
"""

import argparse
import asyncio
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks.charts import hook_request
from benchmarks.load import Sample, load

SIZES = (10, 100, 1_000, 10_000)
GOALS = {10: (0.08, 10.0), 100: (0.30, 4.0), 1_000: (1.1, 1.0), 10_000: (2.5, 0.4)}
HOOK = "/cds-services/diagnostic-assessment"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process with its CPU time and memory."""

    def __init__(self, command: list[str], port: int, ready: str, env: dict[str, str]) -> None:
        self.port = port
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = began + 300  # a busy machine takes its time
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.2):
                    if not ready:
                        break
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2):
                    break
            except OSError:
                if time.perf_counter() > deadline or self._process.poll() is not None:
                    self._process.kill()
                    raise
                time.sleep(0.02)
        self.start_seconds = time.perf_counter() - began

    def _family(self) -> list[psutil.Process]:
        head = psutil.Process(self._process.pid)
        return [head, *head.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds used so far by the process and its children."""
        return sum(p.cpu_times().user + p.cpu_times().system for p in self._family())

    def pss_mib(self) -> float:
        """Proportional set size in MiB."""
        return float(sum(p.memory_full_info().pss for p in self._family()) / 2**20)

    def stop(self) -> None:
        """Terminate and wait."""
        self._process.terminate()
        self._process.wait(timeout=20)


def start_product(workdir: Path, database_url: str | None = None) -> Server:
    """The product as `cds-server serve` starts it, with a database of its own."""
    port = free_port()
    env = dict(os.environ, CDS_VAR_DIR=str(workdir), CDS_PORT=str(port), CDS_LOG_LEVEL="error")
    if database_url:
        env["CDS_DATABASE_URL"] = database_url
    script = str(Path(sys.executable).with_name("cds-server"))
    subprocess.run([script, "db", "upgrade"], env=env, check=True, stdout=subprocess.DEVNULL)
    return Server([script, "serve"], port, "/health/ready", env)


def start_limit() -> Server:
    """The limit server on the same uvicorn."""
    port = free_port()
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.limit_server:app", "--port", str(port), *options]
    return Server(command, port, "", dict(os.environ))


def _measure(server: Server, path: str, body: bytes, callers: int, seconds: float) -> tuple[Sample, float]:
    before = server.cpu()
    sample = asyncio.run(load(server.port, path, body, callers=callers, seconds=seconds))
    if sample.failures or not sample.latencies:
        raise SystemExit(f"{sample.failures} requests failed on {path}")
    return sample, (server.cpu() - before) / len(sample.latencies)


def run(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """All sizes; each round measures limit and product one after the other."""
    rows = []
    for size in SIZES:
        body = hook_request(size)
        workdir = Path(tempfile.mkdtemp(prefix="cds-bench-"))
        product, limit = start_product(workdir), start_limit()
        seen: dict[str, list[float]] = {}

        def note(name: str, value: float, seen: dict[str, list[float]] = seen) -> None:
            seen.setdefault(name, []).append(value)

        try:
            for server, path in ((limit, "/"), (product, HOOK)):
                _measure(server, path, body, 4, 0.5)
            for number in range(rounds):
                print(
                    f"\r{size:>6} resources: round {number + 1}/{rounds} ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
                pair: dict[str, tuple[Sample, Sample, Sample]] = {}
                for name, server, path in (("limit", limit, "/"), ("product", product, HOOK)):
                    many, cpu = _measure(server, path, body, 16, seconds)
                    one, _ = _measure(server, path, body, 1, seconds / 2)
                    crowd, _ = _measure(server, path, body, 64, seconds / 2)
                    pair[name] = (many, one, crowd)
                    note(f"{name} rate", many.rate)
                    note(f"{name} cpu ms", cpu * 1e3)
                    note(f"{name} p50 ms", one.quantile(0.5) * 1e3)
                    note(f"{name} p99 ms", one.quantile(0.99) * 1e3)
                    note(f"{name} crowd p99 ms", crowd.quantile(0.99) * 1e3)
                note("rate ratio", pair["product"][0].rate / pair["limit"][0].rate)
                note("p50 ratio", pair["product"][1].quantile(0.5) / pair["limit"][1].quantile(0.5))
                note("crowd p99 ratio", pair["product"][2].quantile(0.99) / pair["limit"][2].quantile(0.99))
            note("pss MiB", product.pss_mib())
            note("start s", product.start_seconds)
        finally:
            product.stop()
            limit.stop()
            shutil.rmtree(workdir, ignore_errors=True)
        print(file=sys.stderr)
        rows.append(
            {"resources": size, "bytes": len(body), **{k: statistics.median(v) for k, v in seen.items()}}
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = (
        "resources (body)",
        "product req/s",
        "limit req/s",
        "**ratio** (goal)",
        "p50 one caller, product / limit",
        "**ratio** (goal)",
        "p99 one caller",
        "p99 at 64 callers, product / limit",
        "CPU per request",
        "worker PSS",
        "start",
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        rate_goal, p50_goal = GOALS[row["resources"]]
        cells = (
            f"{row['resources']:,} ({row['bytes'] / 1000:,.0f} kB)",
            f"{row['product rate']:,.0f}",
            f"{row['limit rate']:,.0f}",
            f"**{row['rate ratio']:.2f}** (≥ {rate_goal})",
            f"{row['product p50 ms']:.2f} / {row['limit p50 ms']:.2f} ms",
            f"**{row['p50 ratio']:.2f}** (≤ {p50_goal:g})",
            f"{row['product p99 ms']:.1f} ms",
            f"{row['product crowd p99 ms']:.0f} / {row['limit crowd p99 ms']:.0f} ms",
            f"{row['product cpu ms']:.2f} ms",
            f"{row['pss MiB']:.0f} MiB",
            f"{row['start s']:.1f} s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and (with --write) replace the table in a document between its markers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds per size (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one throughput run (default 2)")
    parser.add_argument("--write", type=Path, help="Markdown file whose marked block is replaced")
    options = parser.parse_args()
    uvloop.install()
    text = table(run(options.rounds, options.seconds))
    made = (
        f"{text}\n\nMedians of {options.rounds} interleaved rounds; Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, made by `make bench`."
    )
    print(made)
    if options.write:
        begin, end = "<!-- throughput:begin -->", "<!-- throughput:end -->"
        old = options.write.read_text(encoding="utf-8")
        head, _, rest = old.partition(begin)
        options.write.write_text(f"{head}{begin}\n{made}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What a verified caller costs: the same call with a client's token and without one, in one run.

Two servers of the product on this machine, one that authenticates nobody and one that requires tokens, are
measured in turns; every call carries a token of its own, made beforehand.  Machines are noisy: believe the
ratio.

    python -m benchmarks.client_tokens --rounds 5
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
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from benchmarks.charts import hook_request
from benchmarks.load import Sample, answer
from benchmarks.throughput import HOOK, Server, free_port

BASE = "https://cds.example"
ISSUER = "https://ehr.example"


def tokens(key: Any, algorithm: str, count: int) -> list[str]:
    """Tokens for the hook's endpoint, each with a `jti` of its own."""
    now = int(time.time())
    header = {"alg": algorithm, "typ": "JWT", "kid": algorithm}
    claims = {"iss": ISSUER, "aud": BASE + HOOK, "iat": now, "exp": now + 300}
    return [
        jwt.encode(header, claims | {"jti": str(uuid.uuid4())}, key, algorithms=[algorithm])
        for _ in range(count)
    ]


def start(workdir: Path, keys: dict[str, Any] | None) -> Server:
    """A server that requires tokens signed by `keys`, or, with `None`, one that asks nobody."""
    port = free_port()
    env = dict(os.environ, CDS_VAR_DIR=str(workdir), CDS_PORT=str(port), CDS_LOG_LEVEL="error")
    if keys is not None:
        published = [key.as_dict(private=False) | {"kid": kid} for kid, key in keys.items()]
        (workdir / "keys.json").write_text(json.dumps({"keys": published}))
        (workdir / "clients.toml").write_text(
            f'[[client]]\nname = "ehr"\nissuer = "{ISSUER}"\njwks_file = "keys.json"\n'
            "rate_per_minute = 10000000\n"
        )
        env |= {
            "CDS_CLIENT_AUTH": "required",
            "CDS_TRUSTED_CLIENTS": str(workdir / "clients.toml"),
            "CDS_PUBLIC_BASE_URL": BASE,
        }
    script = str(Path(sys.executable).with_name("cds-server"))
    subprocess.run([script, "db", "upgrade"], env=env, check=True, stdout=subprocess.DEVNULL)
    return Server([script, "serve"], port, "/health/ready", env)


async def calls(port: int, body: bytes, sent: list[str | None], callers: int) -> Sample:
    """One call per member of `sent` (a token, or none), from `callers` connections."""
    left = iter(sent)
    sample = Sample()

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for token in left:
            head = f"POST {HOOK} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\n"
            if token is not None:
                head += f"Authorization: Bearer {token}\r\n"
            began = time.perf_counter()
            writer.write(f"{head}\r\n".encode() + body)
            if await answer(reader) == 200:
                sample.latencies.append(time.perf_counter() - began)
            else:
                sample.failures += 1
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    sample.seconds = time.perf_counter() - began
    if sample.failures:
        raise SystemExit(f"{sample.failures} calls failed")
    return sample


def run(rounds: int, count: int, resources: int) -> list[str]:
    """A line per algorithm and number of callers."""
    body = hook_request(resources)
    keys: dict[str, Any] = {"ES384": ECKey.generate_key("P-384"), "RS384": RSAKey.generate_key(2048)}
    workdirs = [Path(tempfile.mkdtemp(prefix="cds-bench-")) for _ in range(2)]
    lines = []
    with ExitStack() as running:
        for directory in workdirs:
            running.callback(shutil.rmtree, directory, ignore_errors=True)
        open_server = start(workdirs[0], None)
        running.callback(open_server.stop)
        guarded = start(workdirs[1], keys)
        running.callback(guarded.stop)
        for server, sent in ((open_server, [None] * 50), (guarded, tokens(keys["ES384"], "ES384", 50))):
            asyncio.run(calls(server.port, body, list(sent), 4))
        for algorithm, key in keys.items():
            for callers in (1, 64):
                seen: dict[str, list[float]] = {}
                for _ in range(rounds):
                    pair = {}
                    for name, server in (("plain", open_server), ("checked", guarded)):
                        sent: list[str | None] = (
                            [None] * count if name == "plain" else [*tokens(key, algorithm, count)]
                        )
                        before = server.cpu()
                        sample = asyncio.run(calls(server.port, body, sent, callers))
                        pair[name] = (sample, (server.cpu() - before) / count * 1e3)
                        seen.setdefault(f"{name} cpu", []).append(pair[name][1])
                        seen.setdefault(f"{name} p50", []).append(sample.quantile(0.5) * 1e3)
                    rates = pair["checked"][0].rate / pair["plain"][0].rate
                    seen.setdefault("rate", []).append(rates)
                    seen.setdefault("cpu", []).append(pair["checked"][1] / pair["plain"][1])
                middle = {name: statistics.median(values) for name, values in seen.items()}
                lines.append(
                    f"| {algorithm} | {callers} | **{middle['rate']:.2f}** | {middle['plain p50']:.1f} / "
                    f"{middle['checked p50']:.1f} ms | {middle['plain cpu']:.2f} / "
                    f"{middle['checked cpu']:.2f} ms | **{middle['cpu']:.2f}** |"
                )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--calls", type=int, default=600, help="calls per round (default 600)")
    parser.add_argument("--resources", type=int, default=100, help="resources of the chart (default 100)")
    options = parser.parse_args()
    uvloop.install()
    print(
        "| algorithm | callers | rate, verified : unverified | p50, unverified / verified "
        "| CPU per call, the same | ratio |"
    )
    print("|---|---|---|---|---|---|")
    print("\n".join(run(options.rounds, options.calls, options.resources)))


if __name__ == "__main__":
    main()

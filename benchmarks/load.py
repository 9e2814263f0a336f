"""A small HTTP/1.1 load client: keep-alive connections, one request in flight on each.

It drains before it stops: when the time is up no new request is sent, the ones in flight are waited
for and counted, so that neither server profits from work left behind.
"""

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Sample:
    """What one run saw: latencies in seconds, requests that were not answered 200, and the time it took."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency (seconds) that `share` of the requests stayed under."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def answer(reader: asyncio.StreamReader) -> int:
    """Read one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length:
        await reader.readexactly(length)
    return status


async def _caller(port: int, request: bytes, until: float, sample: Sample) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(request)
            if await answer(reader) == 200:
                sample.latencies.append(time.perf_counter() - started)
            else:
                sample.failures += 1
    finally:
        writer.close()
        await writer.wait_closed()


async def load(port: int, path: str, body: bytes, *, callers: int, seconds: float) -> Sample:
    """Send `body` to `path` from `callers` connections for `seconds`, then drain."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    sample = Sample()
    started = time.perf_counter()
    await asyncio.gather(*(_caller(port, request, started + seconds, sample) for _ in range(callers)))
    sample.seconds = time.perf_counter() - started
    return sample

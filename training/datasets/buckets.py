"""Records grouped by patient in bounded memory: spread over temporary files, read back file by file.

The files follow the order of the pseudonyms, so groups come out sorted whatever the number of files.
They hold records as they were sent; they live in a directory of their own that only the owner may read
and that is removed at the end.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

PER_FILE = 32 * 2**20
"""Bytes of input that one file should hold; a few times as much is in memory at once."""
MOST = 256


class Buckets:
    """Spreads records over files by pseudonym; a context manager that removes them."""

    def __init__(self, expected_bytes: int, scratch: Path | None = None) -> None:
        """For about `expected_bytes` of records; `scratch` is where the temporary directory is made."""
        wanted = max(1, -(-expected_bytes // PER_FILE))
        self.count = min(MOST, 1 << (wanted - 1).bit_length())
        self._scratch = scratch
        self._stack = ExitStack()

    def __enter__(self) -> "Buckets":
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cds-dataset-", dir=self._scratch)
        )
        self._paths = [Path(folder) / f"{number:03d}" for number in range(self.count)]
        self._files = [self._stack.enter_context(path.open("wb")) for path in self._paths]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, pseudonym: str, record: bytes) -> None:
        """Keep one record (without line breaks) of a patient."""
        number = int(pseudonym[:4], 16) * self.count >> 16
        self._files[number].write(b"%b %b\n" % (pseudonym.encode(), record))

    def groups(self) -> Iterator[list[tuple[str, list[bytes]]]]:
        """The records of each patient, one file after the other, by rising pseudonym."""
        for file in self._files:
            file.close()
        for path in self._paths:
            held: dict[str, list[bytes]] = {}
            with path.open("rb") as lines:
                for line in lines:
                    pseudonym, _, record = line.rstrip(b"\n").partition(b" ")
                    held.setdefault(pseudonym.decode(), []).append(record)
            path.unlink()
            yield sorted(held.items())

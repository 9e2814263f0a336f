"""The real application over real HTTP, one for all tests that only ask it things."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_standin import Standin, serving
from server_helpers import Running, start

from cds_server.state import Knowledge


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """Terminology and engines, loaded once."""
    return Knowledge.load()


@pytest.fixture(scope="session")
def server(
    knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server with default settings (loopback)."""
    with start(knowledge, tmp_path_factory.mktemp("server"), _sqlite_template) as running:
        yield running


@pytest.fixture
def start_server(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path
) -> Iterator[Callable[..., Running]]:
    """Starts a server with settings of the test's choosing."""
    stack: list[Any] = []

    def begin(**changes: Any) -> Running:
        directory = tmp_path / f"server-{len(stack)}"
        directory.mkdir()
        context = start(knowledge, directory, _sqlite_template, **changes)
        stack.append(context)
        return context.__enter__()

    yield begin
    for context in reversed(stack):
        context.__exit__(None, None, None)


@pytest.fixture
def ehr() -> Iterator[Standin]:
    """A FHIR server of our own on loopback."""
    standin = Standin()
    with serving(standin.app) as url:
        standin.url = url
        yield standin

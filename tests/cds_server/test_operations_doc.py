"""An operator can trust the settings table: every setting is in it, and nothing else is."""

import re
from pathlib import Path

from cds_server.settings import Settings

DOC = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `(CDS_\w+)` \| (.*?) \|", DOC.read_text(encoding="utf-8"), re.M)
    expected = {
        f"CDS_{name.upper()}": "—" if field.default in (None, "") else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert dict(rows) == expected

"""The import rule of ARCHITECTURE.md holds (the same contracts `make lint` checks)."""

import subprocess
import sys
from pathlib import Path


def test_dependencies_point_downwards_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [command, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout

"""Which code is running: what `git describe` says, or ``unknown`` outside of a repository."""

import shutil
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
_SECONDS = 10


def code_revision(folder: Path | None = None) -> str:
    """The revision of the repository that `folder` (by default this package's) lies in."""
    git = shutil.which("git")
    if git is None:
        return UNKNOWN
    try:
        done = subprocess.run(  # noqa: S603 a fixed command, found on the path of whoever trains
            [git, "describe", "--always", "--dirty", "--tags"],
            cwd=folder or Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else UNKNOWN

"""Secrets given as files: a setting ``@path`` stands for what is in the file (Docker, Kubernetes secrets)."""

from pathlib import Path

_LARGEST = 65_536


class SecretUnreadable(ValueError):
    """A setting names a file that holds no secret.  Says which setting and file, never what is in it."""


def revealed(setting: str, given: str) -> str:
    """What a setting says: the text itself, or, after ``@``, that of the file without white space around.

    Args:
        setting: its name, as the site writes it.
        given: its value.

    Raises:
        SecretUnreadable: the file cannot be read, is too large, is no text, or is empty.
    """
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as fault:
        raise SecretUnreadable(f"{setting} names {path}: {fault.strerror}") from None
    if len(content) > _LARGEST:
        raise SecretUnreadable(f"{setting} names {path}: larger than {_LARGEST} bytes")
    try:
        secret = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SecretUnreadable(f"{setting} names {path}: not a text") from None
    if not secret:
        raise SecretUnreadable(f"{setting} names {path}: the file is empty")
    return secret

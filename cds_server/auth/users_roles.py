"""Which roles a user's token gives: the site's table from scopes and claims to roles, validated on load.

A TOML file (``CDS_OIDC_ROLES``), one ``[[role]]`` per rule, each with exactly one condition::

    [[role]]
    role = "auditor"
    claim = "realm_access.roles"    # a dot steps into an object
    value = "cds-auditor"           # the claim is this text, or a list that holds it

    [[role]]
    role = "clinician"
    scope = "cds.assess"            # one of the space-separated texts of `scope` (or of the list `scp`)

A token that no rule fits gives no role: its user is known and may do nothing.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cds_server.auth.principal import Role


class RolesInvalid(ValueError):
    """The table of roles does not hold; says which rule and how to put it right."""


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    claim: str | None = None
    value: str | None = None
    scope: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: tuple[_Rule, ...]


_FOR_PEOPLE = tuple(role for role in Role if role is not Role.CDS_CLIENT)


class RoleRules(msgspec.Struct, frozen=True):
    """The rules of a site."""

    rules: tuple[_Rule, ...]

    @classmethod
    def load(cls, path: Path) -> "RoleRules":
        """Read and check the file.

        Raises:
            RolesInvalid: cannot be read, is not TOML, or a rule does not hold.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise RolesInvalid(
                f"CDS_OIDC_ROLES: {path.name} cannot be read ({type(fault).__name__})"
            ) from None
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> "RoleRules":
        """See `load`."""
        try:
            rules = msgspec.convert(tomllib.loads(text), _File).role
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as fault:
            raise RolesInvalid(f"CDS_OIDC_ROLES: {fault}") from None
        if not rules:
            raise RolesInvalid("CDS_OIDC_ROLES: no [[role]] at all; nobody could do anything")
        for number, rule in enumerate(rules, 1):
            _check(rule, f"CDS_OIDC_ROLES, [[role]] {number}")
        return cls(rules)

    def roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        """The roles of a token with these (verified) claims."""
        scopes = _scopes(claims)
        return frozenset(Role(rule.role) for rule in self.rules if _fits(rule, claims, scopes))


def _check(rule: _Rule, where: str) -> None:
    if rule.role not in _FOR_PEOPLE:
        known = ", ".join(_FOR_PEOPLE)
        raise RolesInvalid(f"{where}: role must be one of {known} (cds-client is for EHRs)")
    by_claim = bool(rule.claim) and bool(rule.value)
    by_scope = bool(rule.scope)
    if by_claim == by_scope or (by_scope and (rule.claim is not None or rule.value is not None)):
        raise RolesInvalid(f"{where}: give either claim and value, or scope")
    if rule.claim is not None and not all(rule.claim.split(".")):
        raise RolesInvalid(f"{where}: claim is a name, or names joined by dots")
    if rule.scope is not None and len(rule.scope.split()) != 1:
        raise RolesInvalid(f"{where}: one scope a rule")


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    found: set[str] = set()
    # RFC 9068 has `scope`, a text; some identity providers send `scp`, a text or a list.
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(item for item in value if isinstance(item, str))
    return frozenset(found)


def _fits(rule: _Rule, claims: Mapping[str, Any], scopes: frozenset[str]) -> bool:
    if rule.scope is not None:
        return rule.scope in scopes
    # The whole name first: some claims are named by URLs, which have dots.
    value: Any = claims.get(rule.claim or "")
    if value is None:
        value = claims
        for step in (rule.claim or "").split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    return rule.value in value if isinstance(value, list) else rule.value == value

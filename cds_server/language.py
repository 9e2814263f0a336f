"""Which language an answer is written in: `Accept-Language` (RFC 9110, 12.5.4) among those we have."""

from functools import lru_cache

from hooks.texts import LANGUAGES


@lru_cache(maxsize=256)
def choose_language(accept_language: str, default: str) -> str:
    """The best of our languages for a header's value; `default` when it asks for none of them.

    ``es-MX,es;q=0.9,en;q=0.5`` gives ``es``; ``fr, *;q=0.1`` gives the default.
    """
    best, best_weight = default, 0.0
    for part in accept_language[:500].split(","):
        tag, _, parameters = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        weight = 1.0
        name, _, value = parameters.strip().partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                continue
        if language in LANGUAGES and best_weight < weight <= 1.0:
            best, best_weight = language, weight
    return best

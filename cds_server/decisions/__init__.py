"""What happens to a decision after it was made: kept sealed, replayed, held, exported, destroyed.

`stored` is what is kept of one decision, `keys` the patients' data keys it is sealed under, `keeper` does
both while the call is answered.  `replay` recomputes; `erasure`, `holds`, `retention` and `export` are for
the data protection officer.  `docs/privacy.md` tells it to people.
"""

"""The noise: discrete Laplace by OpenDP, whose proofs cover sampling and arithmetic.

OpenDP comes with the extra ``privacy`` and is imported at the first question: it is large.
"""

from collections.abc import Sequence

import msgspec

CONFIDENCE = 0.95


class NoiseMissing(Exception):
    """OpenDP is not installed."""


class Noisy(msgspec.Struct, frozen=True):
    """Counts with noise, what they cost (`epsilon`), and how far from the truth 95 % of them are at most."""

    counts: tuple[int, ...]
    epsilon: float
    accuracy: float


def noisy(exact: Sequence[int], *, sensitivity: int, epsilon: float) -> Noisy:
    """Add noise to a histogram of which one patient can change `sensitivity` counts by one (L1).

    Counts below zero are given as zero, which costs nothing (post-processing).

    Raises:
        NoiseMissing: install the extra ``privacy``.
    """
    try:
        from opendp.accuracy import discrete_laplacian_scale_to_accuracy  # noqa: PLC0415 see the module's text
        from opendp.domains import atom_domain, vector_domain  # noqa: PLC0415
        from opendp.measurements import make_laplace  # noqa: PLC0415
        from opendp.metrics import l1_distance  # noqa: PLC0415
        from opendp.mod import enable_features  # noqa: PLC0415
    except ModuleNotFoundError as fault:
        raise NoiseMissing("pip install 'cds-server[privacy]'") from fault
    enable_features("contrib")
    scale = sensitivity / epsilon
    measurement = make_laplace(vector_domain(atom_domain(T=int)), l1_distance(T=int), scale=scale)
    released = measurement(list(exact))
    return Noisy(
        tuple(max(0, count) for count in released),
        # What OpenDP proves of this measurement, which may be a rounding above what was asked for.
        float(measurement.map(d_in=sensitivity)),  # type: ignore[no-untyped-call, unused-ignore]
        float(discrete_laplacian_scale_to_accuracy(scale=scale, alpha=1 - CONFIDENCE)),
    )

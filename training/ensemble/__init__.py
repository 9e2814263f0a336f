"""Training of the common-disease ensemble: members, stack, calibration, conformal sets, export."""

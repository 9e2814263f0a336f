"""Counts over many patients for people without access to any of them, with differential privacy.

`questions` says what can be asked, `counting` counts with each patient's share bounded, `noise` adds the
noise (OpenDP), `ledger` keeps what every month's data has given away.  `answering` puts them together.
"""

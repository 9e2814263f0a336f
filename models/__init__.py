"""Assessing a chart: published rules, engines and the escalation policy.  Pure: no I/O, clock or texts."""

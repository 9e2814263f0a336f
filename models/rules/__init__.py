"""Published rules: scores, critical values, red flags and order rules, all of them data with sources.

The safety net under the learned engines: it holds the interpreters of those tables and decides
nothing about how their findings are weighed against other engines (`models.policy`).
"""

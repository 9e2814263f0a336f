"""Published scores and critical values of a chart, as values: `ScoreRules.load().evaluate(chart)`.

This package holds the interpreters; the numbers and their sources are in ``models/rules/data``.
"""

from models.rules.scores.rules import ScoreRules, ScoresResult

__all__ = ["ScoreRules", "ScoresResult"]

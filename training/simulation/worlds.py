"""Worlds: what the knowledge base would say if its uncertain numbers had come out otherwise.

Every probability, mean and rate of the knowledge is an estimate.  Patients of one world share one draw of all
of them from what their evidence grades leave open, findings that a file forgot included.  Training sees
many worlds, and weights and calibration are learned on worlds that the members have not seen: so what is
learned is what holds in spite of our errors, and the figures on held-out worlds are those to expect from
people whom the knowledge does not describe exactly.
"""

from dataclasses import replace

import numpy as np

from training.simulation.tables import CALM, VAGUE_SHIFT, VAGUE_SPREAD, Tables, own_chances

RATE_DOUBT = 2.0
"""Standard deviation, in logarithms, of how frequent a disease is: rates are estimates, and who is referred
where and what is going round gives every place a mix of its own."""
BACKGROUND_DOUBT = 0.7
"""Standard deviation, in logarithms, of how frequent a finding is among other visitors."""
FORGOTTEN = 0.012
"""Share of the symptoms a file does not list that its disease nevertheless has."""
FORGOTTEN_CHANCE = (0.02, 0.2)
"""Least and largest chance of such a symptom.  All grade C: set by this project."""


def another_world(tables: Tables, rng: np.random.Generator) -> Tables:
    """The tables of one world drawn at random."""
    shape = tables.doubt.shape
    logit = np.log(tables.raw_chance / (1 - tables.raw_chance))
    noise = rng.standard_normal(shape) * tables.doubt
    chance = 1 / (1 + np.exp(-(logit + noise[:, None, :])))
    unlisted = tables.doubt == 0
    calm = np.where(tables.visitor, CALM, 1.0)[:, None]
    usual = np.minimum(tables.background * np.exp(BACKGROUND_DOUBT * rng.standard_normal(shape)), 0.5) * calm
    symptom = np.array([kind == "symptom" for kind in tables.kinds])
    forgotten = unlisted & symptom & (rng.random(shape) < FORGOTTEN) & ~tables.visitor[:, None]
    there = np.where(forgotten, rng.uniform(*FORGOTTEN_CHANCE, shape), usual)
    chance = np.where(unlisted[:, None, :], there[:, None, :], chance)
    chance = np.clip(chance, 0.0003, 0.985)
    own = own_chances(chance, usual[:, None, :], tables.depth, tables.children)
    moved = tables.listed[:, None, :]
    factor = 1 + VAGUE_SHIFT * rng.standard_normal((shape[0], 1, tables.shift.shape[2]))
    offset = VAGUE_SPREAD * tables.healthy * rng.standard_normal((shape[0], 1, tables.shift.shape[2]))
    return replace(
        tables,
        rate=tables.rate * np.exp(RATE_DOUBT * rng.standard_normal(tables.rate.shape[1])),
        chance=chance.astype(np.float32),
        own=own.astype(np.float32),
        shift=np.where(moved, tables.shift * factor + offset, tables.shift).astype(np.float32),
        spread=tables.raw_spread,
    )

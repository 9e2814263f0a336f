"""Tables that turn incoming codes into the pivot vocabularies, and the loaders that check them.

One row of a data file is one fact with its source.  Nothing here judges a patient.
"""

"""The error of this package's data files; texts have their own (`hooks.texts.TextsInvalid`)."""


class DataInvalid(ValueError):
    """A packaged data file of the cards is wrong; names file and entry."""

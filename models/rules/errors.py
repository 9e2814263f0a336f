"""The error of packaged rule data that may not be served: one name for the room, raised only at load."""


class RulesInvalid(ValueError):
    """A rule data file does not hold what its loader requires.

    The message names the file and the id (or row) of the entry, and never anything of a patient.
    """

    def __init__(self, file: str, entry: str, message: str) -> None:
        super().__init__(f"{file}: {entry}: {message}")
        self.file = file
        self.entry = entry

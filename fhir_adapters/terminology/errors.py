"""What can be wrong with the terminology that ships with the product.

A fault here is a fault of the installation, found at start, never of a patient's data.
"""


class TerminologyInvalid(ValueError):
    """A packaged terminology file does not hold what its loader requires; names the file and the row.

    `row` is the line as a spreadsheet counts it (the header is row 1); 0 means the file as a whole.
    """

    def __init__(self, file: str, row: int, problem: str) -> None:
        self.file = file
        self.row = row
        self.problem = problem
        super().__init__(f"{file}, row {row}: {problem}" if row else f"{file}: {problem}")

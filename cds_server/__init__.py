"""The server: HTTP, persistence, audit, operations.  Holds no clinical facts."""

import os

# One patient's vectors are too small to be worth a second thread: numpy's would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

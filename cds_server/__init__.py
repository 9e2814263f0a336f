"""The server: HTTP, persistence, audit, operations.  Holds no clinical facts."""

"""The common-disease ensemble at work: features in, a differential with its reasons out (numpy only)."""

"""The common-disease ensemble at work: a chart's features in, a differential with its reasons out (numpy only)."""

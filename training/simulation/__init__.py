"""Simulated patients out of the knowledge base: who they are and what a chart says of them."""

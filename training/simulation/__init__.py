"""Simulated patients out of the knowledge base: who they are, what a chart says of them, as rows and as FHIR."""

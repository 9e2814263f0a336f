"""The rare-disease engine: an HPO phenotype in, ranked diseases, an alarm probability and reasons out."""

"""What a site teaches the rare-disease engine: confirmed cases, recorded and reversible."""

"""Reading FHIR: bytes to `PatientChart`.  Holds no clinical judgement and no HTTP server code."""

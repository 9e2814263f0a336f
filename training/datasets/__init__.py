"""Training inputs: real records (FHIR bulk export, CSV) and simulated ones as one dataset format on disk.

Every row is read by the chart and feature code of serving.  Start with `fhir.build_from_ndjson`,
`table.build_from_csv`, `simulated.write_simulated` and `load.load_dataset`; docs/training-data.md tells
what each takes and keeps.
"""

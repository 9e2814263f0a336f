"""FHIR R4 for callers without CDS Hooks: `$assess`, its definition, the capability statement."""

"""The simple JSON form of an assessment, for forms and clients without FHIR."""

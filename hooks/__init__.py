"""From an assessment to CDS Hooks cards: services, suggestions and the texts in English and Spanish."""

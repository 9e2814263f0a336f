"""CDS Hooks 2.0.1 (and 3.0 where both can hold): discovery, the services, feedback."""

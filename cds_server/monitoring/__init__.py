"""Operations: metrics, health, logging.  Counts and times only; nothing of a patient."""

"""What clinicians did with the cards they were shown: stored, never lost, never in clear where it may name a patient."""

from cds_server.feedback.store import FeedbackItem, FeedbackStore, OutcomeCount, OverrideReason

__all__ = ["FeedbackItem", "FeedbackStore", "OutcomeCount", "OverrideReason"]

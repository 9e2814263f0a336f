"""What clinicians did with the cards they were shown: stored, never lost, comments never in clear."""

from cds_server.feedback.store import FeedbackItem, FeedbackStore, OutcomeCount, OverrideReason

__all__ = ["FeedbackItem", "FeedbackStore", "OutcomeCount", "OverrideReason"]

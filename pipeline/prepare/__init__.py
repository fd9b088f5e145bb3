"""pipeline/prepare."""

"""model/weights."""

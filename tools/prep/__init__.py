"""tools/prep."""

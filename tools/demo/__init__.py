"""tools/demo."""

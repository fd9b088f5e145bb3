"""model/recipes."""

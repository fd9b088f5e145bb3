"""tools/figures/small_nets."""

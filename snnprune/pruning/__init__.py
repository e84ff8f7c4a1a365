"""From evidence to scores, from scores to masks, and what repairs the weights that stay."""

"""What one pass over data finds out about a network."""

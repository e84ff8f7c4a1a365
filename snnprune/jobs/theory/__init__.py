"""`snnprune theory`: what the paper promises, in numbers, and tried."""

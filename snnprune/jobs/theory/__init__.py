"""`snnprune theory` and `analyze`: what the paper promises, in numbers, and tried."""

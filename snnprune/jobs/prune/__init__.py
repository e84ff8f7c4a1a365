"""`snnprune prune`: what it is asked for, what it does, what came of it."""

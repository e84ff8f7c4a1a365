"""Reports: the evidence of a command as JSON, as pages and as pictures."""

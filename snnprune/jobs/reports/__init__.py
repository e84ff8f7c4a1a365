"""The reports of all commands as types, of which the JSON Schema is made."""

"""The commands that run a recipe, and what they have around their loops."""

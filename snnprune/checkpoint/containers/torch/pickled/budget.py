"""How much a pickle may make: a small file must not fill the memory or take minutes.

What a file is charged for an object is about what Python takes for it.
"""

STEPS, STEPS_OF = 400_000, 4
"""Instructions that any file may have, and the bytes of it that allow for one more."""

FREE = 56 * 2**20
"""Bytes that any file may make; a larger file may make its own size more."""

SMALL, TUPLE, LIST, NAME, TABLE, ITEM, OBJECT = 32, 64, 96, 128, 128, 128, 288
"""Bytes of a number, a tuple, a list, a name, a dict, an item of a dict, and a stand-in."""

LONGEST = 2**20
"""Bytes of text that are read; what is longer can neither be a key nor be shown."""

LARGEST_NUMBER = 128
"""Bytes of an integer that is read."""

LONGEST_NAME = 1024
"""Characters of the name of a class or function."""

"""Files of every kind that snnprune reads, good ones and bad ones derived from them.

`bench` makes the good ones with the tool itself, `case` says what a case is, and each other module
adds the cases of some kinds; `every_case` has them all.
"""

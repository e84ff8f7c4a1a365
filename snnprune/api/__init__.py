"""What a notebook or a script calls: a network of its own process in, results that show themselves.

`calls` has the functions, each what a command does; `given` takes what they are handed, `options`
reads what is said beside, `results` is what comes out, and `progress` tells how far they are.
"""

"""Settings that all tests share."""

from hypothesis import settings

# the first call into torch alone takes longer than hypothesis allows an example
settings.register_profile("snnprune", deadline=None)
settings.load_profile("snnprune")

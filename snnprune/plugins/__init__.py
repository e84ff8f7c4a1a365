"""Code that users and packages name: how it is found, called and watched."""

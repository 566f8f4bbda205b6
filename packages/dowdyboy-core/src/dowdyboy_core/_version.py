"""The version of all dowdyboy packages."""

__version__ = "0.1.0"

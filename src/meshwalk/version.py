"""The version, in one place: the package's metadata and the hello frame take it from here."""

__version__ = "0.1.0"

AGENT = f"meshwalk/{__version__}"

"""meshwalk."""

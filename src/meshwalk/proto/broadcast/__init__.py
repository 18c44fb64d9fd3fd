"""Broadcasts: how they spread, are repaired, kept, confirmed, and what is held against abuse."""

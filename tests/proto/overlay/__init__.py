"""Tests of the overlay's machines."""

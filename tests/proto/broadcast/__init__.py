"""Tests of the machines of broadcasts."""

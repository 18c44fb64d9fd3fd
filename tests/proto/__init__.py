"""Tests of the machines, and of whole networks of them."""

"""Tests of the machines for what applications say to each other."""

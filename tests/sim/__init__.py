"""Tests of the simulator; a package, since other folders have files of the same names."""

"""Tests of `meshwalk.testing`; a package, since other folders have files of the same names."""

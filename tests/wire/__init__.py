"""Tests of `meshwalk.wire`, file by file."""

"""Whole networks on a virtual clock: one seed, one result, no sockets and no waiting."""

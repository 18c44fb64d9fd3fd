"""Membership: how a node finds its links and keeps them."""

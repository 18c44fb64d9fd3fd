"""Messages between the applications of two peers: one way, requests, and conversations."""

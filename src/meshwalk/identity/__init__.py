"""Who a node is and which network it belongs to: keys, the network key, leaf certificates."""

"""The asyncio side: transports, the driver that turns effects into I/O, and the public Node."""

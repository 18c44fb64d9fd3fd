"""Measurements in simulation, one file each; the catalogue lists them."""

"""The five regions and the readout. They never import each other: they meet on the bus."""

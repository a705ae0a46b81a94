"""Words of quantities: numbers, and units of measurement."""

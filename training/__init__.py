"""Building what the product serves: compiled terminology now, datasets and models later.  No serving code."""

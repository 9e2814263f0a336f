"""How good the ensemble is: on held-out simulated patients, on other people's data, and as a report."""

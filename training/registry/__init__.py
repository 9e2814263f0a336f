"""What was trained, and what is in use: MLflow tracking and the registry of model bundles."""

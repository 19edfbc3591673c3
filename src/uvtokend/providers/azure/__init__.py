"""Azure Artifacts."""

"""AWS CodeArtifact."""

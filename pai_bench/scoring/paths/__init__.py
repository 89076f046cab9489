"""The network as a sum over paths: record a forward pass, replay it with other arithmetic."""

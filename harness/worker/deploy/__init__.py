"""Uses trained networks: turns images into features, and exports networks to ONNX and torch.export."""

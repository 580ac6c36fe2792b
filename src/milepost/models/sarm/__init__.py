"""SARM, the stage-aware reward model: config, the two networks, training samples, the model."""

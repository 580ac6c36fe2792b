"""What the value model and the success head share: a small ensemble on the features of a causal window, its inputs, samples and recipe."""

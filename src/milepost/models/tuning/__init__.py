"""Fine-tuning of models that ask a VLM, on a few demonstrations: their heads alone, or low-rank adapters too."""

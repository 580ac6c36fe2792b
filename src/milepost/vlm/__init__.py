"""Vision-language models: the tools every zero-shot reward model and annotator is built on."""

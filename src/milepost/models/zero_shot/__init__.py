"""What the models that ask a vision-language model have in common: their config and options, frames, instructions, and the VLM itself."""

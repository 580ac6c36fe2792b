"""LeRobot's reward classifier: its checkpoint is read where its encoder is one that transformers has itself."""

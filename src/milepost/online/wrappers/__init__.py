"""Rewards for reinforcement learning: one file for each library, which needs that library, and what they have in common."""

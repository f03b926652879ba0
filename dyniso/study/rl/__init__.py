"""Continual reinforcement learning: PPO on sequences of games, many runs at once.

`sequence` says which game comes when, `games` and `envs` play them, `agent` and `ppo` learn, `train` is the loop.
"""

"""Env runners, replay shards, learners, evaluator, relays: actors that are thin shells around plain classes."""

"""Collecting demonstrations: prompts in, a demonstrator's answers out, or a reason for each."""

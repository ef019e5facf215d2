"""Helpers that several tests share: clips, certificates, commands, oracles."""

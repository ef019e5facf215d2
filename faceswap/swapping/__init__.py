"""Swap the faces in photos and video with trained models."""

"""A model and footage become swapped footage."""

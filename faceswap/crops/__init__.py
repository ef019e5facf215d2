"""What an aligned crop shows: masks, visible skin, eyes, and the detail of real photos."""

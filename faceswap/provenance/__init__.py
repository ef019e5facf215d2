"""Who made a file, from what, with whose consent. The only home of c2pa and cryptography."""

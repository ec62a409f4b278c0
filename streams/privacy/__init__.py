"""What people may ask of us, and whom we may remember: consent, erasure, pseudonyms, and what is held of a person."""

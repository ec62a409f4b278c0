"""Reviews as they come: the reader that learns how ads and brands sound, what it keeps, and its pages."""

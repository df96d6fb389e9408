"""Playing episodes, and storing them."""

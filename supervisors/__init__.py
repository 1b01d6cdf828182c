"""The supervision trees that a node runs. They use `aspen`; nothing in `aspen` imports them."""

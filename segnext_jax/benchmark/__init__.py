"""How fast a network is here: the command is `segnext-jax benchmark`."""

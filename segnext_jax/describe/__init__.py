"""What a network is: the command is `segnext-jax describe`."""

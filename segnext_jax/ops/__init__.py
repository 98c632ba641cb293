"""Pure functions of arrays: what the network, the loss and the input need."""

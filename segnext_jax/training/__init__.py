"""Training: state, schedule, optimizer, step, and the loop that joins them."""

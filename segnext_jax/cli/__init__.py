"""What every command line shares: errors, logging, progress, several processes."""

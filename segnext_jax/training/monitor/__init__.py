"""What watches a run: metrics, speed, broken steps, preemption, profiles."""

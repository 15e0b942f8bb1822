"""Single-sample latency."""

"""Energy: sourced constants with intervals, priced on counted events."""

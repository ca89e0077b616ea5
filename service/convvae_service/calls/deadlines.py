"""The clocks of callers: how a front tells a deadline that has passed."""

__all__ = ["DEADLINE_SLACK_S", "MIN_TIME_LEFT_S"]

# No call can be answered in less: with less time left, it has expired on arrival.
MIN_TIME_LEFT_S = 0.001
# The clock of a caller expires first: its reset arrives a little before the deadline has passed on this side.
DEADLINE_SLACK_S = 0.05

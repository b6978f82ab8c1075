"""What models, detectors and triggers are worth: metrics, and how certain they are."""

CONFIDENCE = 0.95  # of every interval

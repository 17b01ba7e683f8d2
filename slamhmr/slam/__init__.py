"""Camera motion: video and people masks -> camera track."""

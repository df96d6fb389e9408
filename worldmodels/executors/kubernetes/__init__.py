"""Jobs on Kubernetes: their specs, their submission, and their state in words."""

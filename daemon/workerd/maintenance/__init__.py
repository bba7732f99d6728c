"""What one node, the leader, does for all: stage, rescue, prune."""

"""The manager's page in a real Chromium."""

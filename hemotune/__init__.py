"""What stages share. Imports nothing of tasks/ or flows/."""

"""What Tidegate can do: contracts and the values that they pass. No logic and no framework; a user's Python starts here."""

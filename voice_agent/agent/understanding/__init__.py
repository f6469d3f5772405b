"""What a caller's words mean: numbers, weights, amounts, dates, yes and no, names, intents. Pure; never guesses silently."""

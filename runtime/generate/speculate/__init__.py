"""Speculative decoding: tokens are guessed, and one pass of the model checks several guesses."""

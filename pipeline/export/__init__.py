"""Sealed models written in forms that other programs read, and the way back."""

"""Sealed models behind HTTP: predictions, explanations and generated text, and one page that shows them."""

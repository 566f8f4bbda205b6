"""A run crosses from one framework to another: tensors in words that no framework owns, and back."""

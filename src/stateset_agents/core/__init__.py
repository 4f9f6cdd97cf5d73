"""The words that every room speaks, in pure Python."""

"""Commands: parse arguments, call one function, print what it returns."""

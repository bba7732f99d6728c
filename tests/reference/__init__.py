"""The reference pages of the documentation, made from the code: `make reference` writes them, tests demand that they are current."""

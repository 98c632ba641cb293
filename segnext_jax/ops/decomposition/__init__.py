"""Matrix decompositions of the Hamburger."""

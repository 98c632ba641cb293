"""A web page that shows what a network sees in an image."""

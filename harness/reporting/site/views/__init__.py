"""Views of the site: one file each, which turns records into data."""

"""Audio: codecs and resampling; one subject per file."""

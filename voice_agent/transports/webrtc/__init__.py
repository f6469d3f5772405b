"""WebRTC: the same protocol over Opus and a data channel."""

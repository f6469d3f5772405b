"""Speech: voice activity, utterances, and the recogniser with its work queue."""

"""Speed, size and start-up of wfengine beside the raw SQLite limit. See README.md."""

"""When things are due: schedules, ticks, the daemon loop. It may import the journal, never the engine."""

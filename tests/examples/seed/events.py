"""The user's example of a stream that loops until it is told to stop, with the stream and the tasks it speaks of."""

from pathlib import Path

from surroundings import note

from wfengine import flow, task

EVENTS = [[1, 2], [], [3], [4, 5, 6], []]  # what each look at the stream finds


@task
def look(number, batch_size, timeout):
    note(f"look {number}")
    return EVENTS[number % len(EVENTS)]


class Stream:
    """Each look is a task, so that a resumed run is given what it was given before."""

    def __init__(self):
        self.number = -1

    def get_events(self, batch_size, timeout):
        self.number += 1
        return look(self.number, batch_size, timeout)


def connect_to_event_stream():
    return Stream()


@task
def process_events(event):
    note(f"process {event}")
    return event * 10


@task
def update_dashboards(processed):
    note(f"update {processed}")


@task
def should_exit():
    seen = len({line for line in Path("effects.txt").read_text().splitlines() if line.startswith("process")})
    note(f"exit after {seen}")
    return seen >= 6

@flow(name="Real-time Analytics")
def process_event_stream():
    # Set up stream connection
    stream = connect_to_event_stream()
    
    while True:
        # Fetch batch of events
        events = stream.get_events(batch_size=100, timeout=30)
        if not events:
            continue
            
        # Process events in parallel
        processed = process_events.map(events)
        
        # Update real-time dashboards
        update_dashboards(processed)
        
        # Check if we should continue or exit
        if should_exit():
            break

if __name__ == "__main__":
    process_event_stream()

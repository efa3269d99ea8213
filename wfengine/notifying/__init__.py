"""How notifications are sent. What users import is `wfengine.notifications`."""

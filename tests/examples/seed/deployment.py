"""The user's deployment of the flow of the last example."""

from hello import hello_flow

from wfengine.deployments import Deployment
from wfengine.orion.schemas.schedules import IntervalSchedule
from datetime import timedelta

# Create a deployment
deployment = Deployment.build_from_flow(
    flow=hello_flow,
    name="scheduled-hello",
    schedule=IntervalSchedule(interval=timedelta(hours=1)),
    tags=["demo"]
)
deployment.apply()

"""Ask this machine's daemon by ``grpc.health.v1``; exit 0 if it serves. ``health.py``: is it alive?

``health.py decaf_node.v1.Mesh``: has it loaded its model, and can others mix with it? For containers' health checks.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from decaf_node.places import find_places

request = health_pb2.HealthCheckRequest(service="".join(sys.argv[1:]))
with grpc.insecure_channel(f"unix:{find_places(os.environ).control_socket}") as channel:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=3.0)
    except grpc.RpcError as error:
        sys.exit(f"no answer: {error.details()}")
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)

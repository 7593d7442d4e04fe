"""A Ray Serve application: the gateway before many replicas of the model, on one machine or on several.

    caller ──HTTP──> Serve's proxy ──> Ingress, the gateway ──Ray──> Replica, the service and its engine
                                                            ──Ray──> Replica ...

Ray places the replicas, starts a new one where one has died, and adds and removes some with the load. Needs ray[serve],
see requirements/cluster.txt.
"""

from hermes.cluster.application import ClusterSettings, application, resources_of

__all__ = ["ClusterSettings", "application", "resources_of"]

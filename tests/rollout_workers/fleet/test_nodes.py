"""A cluster of two nodes on this machine, one of which is lost."""

from ray.cluster_utils import Cluster as RayCluster

from rollout_workers.fleet.actor_pool import ActorPool
from rollout_workers.fleet.settings import FleetSettings
from tests.references.odd_actors import OddActor
from tests.rollout_workers.fleet.test_crew import ENGINE, PARAMS, STATE, requests_of


def test_a_node_that_is_lost(caplog):
    """Two nodes, an actor on each; one node goes in the middle of a call, with no room for its actor elsewhere."""
    cluster = RayCluster()
    try:
        head = cluster.add_node(num_cpus=1, include_dashboard=False)
        other = cluster.add_node(num_cpus=1)
        settings = FleetSettings(cpus=1, address=cluster.address, placement="spread")
        assert head is not other
        gone = []

        def lose(tokens, finished):
            if finished and not gone:
                gone.append(other)
                cluster.remove_node(other, allow_graceful=False)

        with ActorPool(2, {}, ENGINE, settings, actor=OddActor) as pool:
            pool.publish(STATE, 1)
            assert len({member.actor for member in pool.crew.members}) == 2
            rollouts = pool.rollout(requests_of([300] * 16), PARAMS, lose)
            assert gone and all(len(rollout.completion_ids) == 300 for rollout in rollouts)
            pool.publish(STATE, 2)
            assert len(pool.rollout(requests_of([3] * 4), PARAMS)) == 8
            assert "died and is started again" in caplog.text
    finally:
        cluster.shutdown()

//! Where the leader of a partition is: what a client is told that asked the wrong broker (KIP-951).

use std::collections::BTreeMap;

use barnabas_core::ids::BrokerId;

use super::Context;

/// The leader of a partition as far as this broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// -1 if unknown.
    pub id: i32,
    pub epoch: i32,
}

/// The address of a leader on the listener of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// The leader of a partition: as its own replica has it, else as the metadata has it.
pub fn current_leader(context: &Context<'_>, topic: &str, partition: i32) -> CurrentLeader {
    if let Ok(partition) = context.broker.replicas.partition(topic, partition) {
        let view = partition.view();
        return CurrentLeader {
            id: view.leader,
            epoch: view.leader_epoch,
        };
    }
    let image = context.broker.metadata.image();
    let known = image
        .topics
        .get(topic)
        .and_then(|topic| topic.partitions.get(&partition));
    known.map_or(CurrentLeader { id: -1, epoch: -1 }, |known| CurrentLeader {
        id: known.leadership.leader,
        epoch: known.leadership.leader_epoch,
    })
}

/// The addresses of those leaders that are alive, each once.
pub fn endpoints(
    context: &Context<'_>,
    leaders: impl IntoIterator<Item = CurrentLeader>,
) -> Vec<NodeEndpoint> {
    let mut found = BTreeMap::new();
    for leader in leaders {
        if let Some(endpoint) = endpoint(context, leader.id) {
            found.insert(leader.id, endpoint);
        }
    }
    found.into_values().collect()
}

fn endpoint(context: &Context<'_>, leader: i32) -> Option<NodeEndpoint> {
    let image = context.broker.metadata.image();
    let broker = image.brokers.get(&BrokerId(leader))?;
    let endpoint = broker
        .endpoints
        .iter()
        .find(|endpoint| endpoint.listener == context.listener())?;
    Some(NodeEndpoint {
        node_id: leader,
        host: endpoint.host.clone(),
        port: endpoint.port.into(),
        rack: broker.rack.clone(),
    })
}

//! What ZooKeeper says: read only. Changes of topics' settings within milliseconds, and who is registered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{BrokerEpoch, BrokerId, TopicName};
use barnabas_core::znodes::{BrokerRegistration, ConfigChange, ConfigEntity};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use zookeeper_client::{AddWatchMode, Client, Error};

use crate::controller::{Context, refresh};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(10);
/// In case an event was missed: sessions move between servers.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Registered brokers, as long as the session is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    pub is_connected: bool,
    /// With their epochs: a broker that restarted has another one.
    pub brokers: BTreeMap<BrokerId, BrokerEpoch>,
}

/// Follows ZooKeeper for ever.
pub async fn run(context: Arc<Context>, registered: watch::Sender<Registered>) {
    let gauge = |is: bool| {
        let value = f64::from(u8::from(is));
        context
            .metrics
            .set("barnabas_operator_zk_connected", &[], value);
    };
    let mut seen = None;
    let mut was_connected = false;
    loop {
        gauge(false);
        let followed = follow(&context, &registered, &mut seen, &gauge).await;
        registered.send_modify(|known| known.is_connected = false);
        gauge(false);
        if let Err(error) = followed {
            if was_connected || seen.is_none() {
                warn!(%error, "ZooKeeper is out of reach; drift is found by resync until it is back");
            }
            was_connected = false;
        } else {
            was_connected = true;
        }
        sleep(RETRY).await;
    }
}

/// One session.
async fn follow(
    context: &Context,
    registered: &watch::Sender<Registered>,
    seen: &mut Option<i64>,
    gauge: &impl Fn(bool),
) -> Result<(), Error> {
    let connector = Client::connector()
        .with_session_timeout(SESSION)
        .with_connection_timeout(Duration::from_secs(4));
    let connect = connector.connect(&context.settings.zookeeper_connect);
    let client = timeout(Duration::from_secs(20), connect)
        .await
        .map_err(|_| Error::Timeout)??;
    info!("connected to ZooKeeper");
    gauge(true);
    let mut changes = watched(&client, ConfigChange::PARENT).await?;
    let mut brokers = watched(&client, BrokerRegistration::PARENT).await?;
    let mut state = client.state_watcher();
    read_brokers(&client, registered).await?;
    read_changes(context, &client, seen).await?;
    loop {
        tokio::select! {
            biased;
            state = state.changed() => {
                if state.is_terminated() {
                    return Ok(());
                }
                let is_connected = state == zookeeper_client::SessionState::SyncConnected;
                gauge(is_connected);
                if is_connected {
                    read_brokers(&client, registered).await?;
                    read_changes(context, &client, seen).await?;
                } else {
                    registered.send_modify(|known| known.is_connected = false);
                }
            }
            event = brokers.changed() => {
                debug!(?event, "brokers");
                read_brokers(&client, registered).await?;
            }
            event = changes.changed() => {
                debug!(?event, "changes");
                read_changes(context, &client, seen).await?;
            }
            () = sleep(LOOK_AGAIN) => {
                read_brokers(&client, registered).await?;
                read_changes(context, &client, seen).await?;
            }
        }
    }
}

async fn watched(
    client: &Client,
    path: &str,
) -> Result<zookeeper_client::PersistentWatcher, Error> {
    // The node need not be there yet.
    client.watch(path, AddWatchMode::Persistent).await
}

async fn read_brokers(
    client: &Client,
    registered: &watch::Sender<Registered>,
) -> Result<(), Error> {
    let mut brokers = BTreeMap::new();
    for child in children(client, BrokerRegistration::PARENT).await? {
        let Ok(id) = child.parse::<i32>() else {
            continue;
        };
        let path = BrokerRegistration::path(BrokerId(id));
        if let Some(stat) = client.check_stat(&path).await? {
            brokers.insert(BrokerId(id), stat.czxid);
        }
    }
    let now = Registered {
        is_connected: true,
        brokers,
    };
    registered.send_if_modified(|known| {
        let changed = *known != now;
        *known = now;
        changed
    });
    Ok(())
}

async fn children(client: &Client, path: &str) -> Result<Vec<String>, Error> {
    match client.list_children(path).await {
        Err(Error::NoNode) => Ok(Vec::new()),
        children => children,
    }
}

/// Reads notifications that are newer than those seen. The first time, all there were before count as seen.
async fn read_changes(
    context: &Context,
    client: &Client,
    seen: &mut Option<i64>,
) -> Result<(), Error> {
    let number = |child: &str| {
        child
            .strip_prefix(ConfigChange::PREFIX)?
            .parse::<i64>()
            .ok()
    };
    let names = children(client, ConfigChange::PARENT).await?;
    let mut numbered: Vec<(i64, String)> = names
        .into_iter()
        .filter_map(|child| Some((number(&child)?, child)))
        .collect();
    numbered.sort();
    let last = numbered.last().map_or(-1, |(number, _)| *number);
    let Some(known) = *seen else {
        *seen = Some(last);
        return Ok(());
    };
    let mut topics: BTreeSet<TopicName> = BTreeSet::new();
    for (number, child) in &numbered {
        if *number <= known {
            continue;
        }
        let data = match client.get_data(&ConfigChange::path(child)).await {
            Ok((data, _)) => data,
            Err(Error::NoNode) => continue,
            Err(error) => return Err(error),
        };
        match ConfigChange::decode(&data) {
            Ok(ConfigChange(ConfigEntity::Topic(topic))) => {
                topics.insert(topic.as_str().into());
            }
            Ok(_) => {}
            Err(error) => debug!(child, %error, "a notification that cannot be read"),
        }
    }
    *seen = Some(last.max(known));
    if !topics.is_empty() {
        refresh::topics_changed(context, &topics).await;
    }
    Ok(())
}

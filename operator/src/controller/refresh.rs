//! Keeps the snapshot of the cluster fresh and tells those whom a change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barnabas_core::ids::TopicName;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Context, lock};
use crate::cluster::ClusterView;

/// Topics beyond which replicas are looked at more seldom.
const MANY: usize = 2000;

/// Topics that differ between two snapshots.
fn changed(before: &ClusterView, after: &ClusterView) -> BTreeSet<TopicName> {
    let mut names = BTreeSet::new();
    for (name, topic) in &after.topics {
        if before.topics.get(name) != Some(topic) {
            names.insert(name.clone());
        }
    }
    for name in before.topics.keys() {
        if !after.topics.contains_key(name) {
            names.insert(name.clone());
        }
    }
    for (one, other) in [(before, after), (after, before)] {
        for (partition, running) in &one.reassignments {
            if other.reassignments.get(partition) != Some(running) {
                names.insert(partition.topic.clone());
            }
        }
    }
    names
}

/// Runs for ever.
pub async fn run(context: Arc<Context>) {
    let mut before = context.cluster.view();
    let mut looked_at_all: Option<Instant> = None;
    loop {
        let resync = context.settings.resync();
        let is_due = looked_at_all.is_none_or(|at| at.elapsed() >= resync);
        let refreshed = if is_due {
            context.cluster.refresh().await
        } else {
            context.cluster.refresh_replicas().await
        };
        let mut pause = Duration::from_secs(context.settings.refresh_seconds.max(1));
        match refreshed {
            Ok(view) => {
                if is_due {
                    looked_at_all = Some(Instant::now());
                }
                if !context.is_cluster_known.swap(true, Ordering::Relaxed) {
                    info!(
                        brokers = view.brokers.len(),
                        topics = view.topics.len(),
                        "the cluster is known"
                    );
                    // Whoever waited for this looks now.
                    let claimed: Vec<String> = lock(&context.claims).topics().collect();
                    context.enqueue_topics(claimed).await;
                }
                if let Some(since) = lock(&context.unreachable_since).take() {
                    info!(after_s = since.elapsed().as_secs(), "brokers answer again");
                }
                let view = context.cluster.view();
                let names = changed(&before, &view);
                before = view;
                pause = pause.mul_f64(1.0 + before.topics.len() as f64 / MANY as f64);
                context.enqueue_topics(names.iter()).await;
            }
            Err(error) => {
                let mut since = lock(&context.unreachable_since);
                if since.is_none() {
                    warn!(%error, "no broker answers");
                    *since = Some(Instant::now());
                }
                drop(since);
                pause = Duration::from_secs(1);
            }
        }
        sleep(pause).await;
    }
}

/// Somebody has changed these topics: looks at them and tells their owners.
pub async fn topics_changed(context: &Context, names: &BTreeSet<TopicName>) {
    {
        let mut dirty = lock(&context.dirty);
        let claims = lock(&context.claims);
        // What nobody claims is seen by the resync.
        let claimed = names.iter().filter(|name| claims.owner(name).is_some());
        dirty.extend(claimed.map(ToString::to_string));
    }
    context.enqueue_topics(names.iter()).await;
}

//! `scale-in`: sees to it that the brokers with the highest ids are empty before they go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use barnabas_core::ids::BrokerId;
use clap::{Args, ValueEnum};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::admin::{Admin, Metadata, Topics};

/// How often the brokers that are to go are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Answers in a row that show them empty: topics may be created meanwhile.
const QUIET: u32 = 3;

/// What is done if brokers that are to go hold replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScaleInMode {
    /// Say so, and fail.
    Refuse,
    /// Have the operator move them away, and wait for it.
    Auto,
}

/// Allows the brokers' `StatefulSet` fewer replicas, if the brokers that go are empty.
#[derive(Args, Clone, Debug)]
pub struct ScaleInArgs {
    /// The brokers' `StatefulSet`.
    #[arg(long)]
    pub stateful_set: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// How many brokers stay.
    #[arg(long)]
    pub replicas: i32,
    /// Brokers to ask first, `host:port`, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub bootstrap: Vec<String>,
    /// What is done if they hold replicas.
    #[arg(long, value_enum, default_value = "refuse")]
    pub mode: ScaleInMode,
    /// Seconds that it may take to empty them.
    #[arg(long, default_value_t = 3600)]
    pub timeout: u64,
}

/// Ends well once the brokers that go are empty and the `StatefulSet` says so by `barnabas.dev/drained-to`.
pub async fn scale_in(args: &ScaleInArgs, client: kube::Client) -> anyhow::Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &args.namespace);
    let Some(set) = sets.get_opt(&args.stateful_set).await? else {
        info!("there is no StatefulSet yet: nothing goes");
        return Ok(());
    };
    let spec = set.spec.context("the StatefulSet has no spec")?;
    let first = spec.ordinals.and_then(|one| one.start).unwrap_or(0);
    let now = spec.replicas.unwrap_or(1);
    if args.replicas >= now {
        // What was empty once will be filled.
        allow(&sets, args, None).await?;
        info!(now, wanted = args.replicas, "no broker goes");
        return Ok(());
    }
    let going: Vec<BrokerId> = (first + args.replicas..first + now).map(BrokerId).collect();
    let admin = Admin::new(crate::admin::AdminOptions::new(args.bootstrap.clone()))?;

    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut held = held_by(&admin.metadata(Topics::All).await?, &going);
    if !held.is_empty() {
        let list = described(&held);
        if args.mode == ScaleInMode::Refuse {
            bail!(
                "{list}. Move them away first: annotate the pods with barnabas.dev/decommission=true and wait, \
                 or set broker.scaleIn=Auto"
            );
        }
        info!("{list}: asking the operator to move them away");
        decommission(args, &client, &going).await?;
    }
    let mut quiet = 0;
    while quiet < QUIET {
        ensure!(
            Instant::now() < deadline,
            "{} after {} s",
            described(&held),
            args.timeout
        );
        sleep(LOOK).await;
        if let Ok(metadata) = admin.metadata(Topics::All).await {
            held = held_by(&metadata, &going);
            quiet = if held.is_empty() { quiet + 1 } else { 0 };
        }
    }
    allow(&sets, args, Some(args.replicas)).await?;
    info!(?going, "empty: these brokers may go");
    Ok(())
}

/// Says to which number the admission policy lets replicas be lowered.
async fn allow(
    sets: &Api<StatefulSet>,
    args: &ScaleInArgs,
    replicas: Option<i32>,
) -> anyhow::Result<()> {
    let replicas = replicas.map(|count| count.to_string());
    let patch = serde_json::json!({
        "metadata": {"annotations": {"barnabas.dev/drained-to": replicas}}
    });
    let params = PatchParams::default();
    sets.patch(&args.stateful_set, &params, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// How many partitions have a replica on each of `brokers`; those with none are left out.
fn held_by(metadata: &Metadata, brokers: &[BrokerId]) -> BTreeMap<BrokerId, usize> {
    let mut held = BTreeMap::new();
    let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
    for replica in partitions.flat_map(|partition| &partition.replicas) {
        if brokers.contains(replica) {
            *held.entry(*replica).or_default() += 1;
        }
    }
    held
}

fn described(held: &BTreeMap<BrokerId, usize>) -> String {
    let all = held.iter();
    let all: Vec<String> = all
        .map(|(broker, count)| format!("broker {broker} holds {count} replicas"))
        .collect();
    all.join(", ")
}

/// Tells the operator by an annotation of the pods.
async fn decommission(
    args: &ScaleInArgs,
    client: &kube::Client,
    going: &[BrokerId],
) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &args.namespace);
    let patch = serde_json::json!({
        "metadata": {"annotations": {"barnabas.dev/decommission": "true"}}
    });
    let params = PatchParams::default();
    for broker in going {
        let name = format!("{}-{broker}", args.stateful_set);
        pods.patch(&name, &params, &Patch::Merge(&patch))
            .await
            .with_context(|| format!("annotating pod {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{PartitionMetadata, TopicMetadata};

    #[test]
    fn replicas_are_counted_on_the_brokers_that_go() {
        let partition = |partition, replicas: &[i32]| PartitionMetadata {
            partition,
            leader: None,
            leader_epoch: 0,
            replicas: replicas.iter().copied().map(BrokerId).collect(),
            isr: Vec::new(),
            offline: Vec::new(),
        };
        let metadata = Metadata {
            topics: vec![TopicMetadata {
                name: "orders".into(),
                error: None,
                id: None,
                is_internal: false,
                partitions: vec![partition(0, &[0, 1, 3]), partition(1, &[3, 4, 1])],
            }],
            ..Metadata::default()
        };
        let held = held_by(&metadata, &[BrokerId(3), BrokerId(4), BrokerId(5)]);
        assert_eq!(
            described(&held),
            "broker 3 holds 2 replicas, broker 4 holds 1 replicas"
        );
        assert!(held_by(&metadata, &[BrokerId(5)]).is_empty());
    }
}

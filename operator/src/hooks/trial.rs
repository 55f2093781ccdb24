//! `try`: what `helm test` runs. Records there and back, a Topic from creation to deletion, the operator's pages.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use barnabas_core::ids::{BrokerId, TopicPartition};
use bytes::Bytes;
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use crate::admin::{Admin, AdminError, AdminOptions, KafkaError, Layout, NewTopic, Topics};
use crate::resource::Topic;

/// Records of one trial.
const RECORDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// Tries a release out.
#[derive(Args, Clone, Debug)]
pub struct TrialArgs {
    /// Brokers to ask first, `host:port`, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub bootstrap: Vec<String>,
    /// Replicas of the topics that are tried.
    #[arg(long, default_value_t = 3)]
    pub replicas: i16,
    /// The namespace in which a Topic is tried; without it none is.
    #[arg(long)]
    pub topic_namespace: Option<String>,
    /// `host:port` of the operator's pages; without it they are not looked at.
    #[arg(long)]
    pub operator: Option<String>,
    /// Seconds for all of it.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// Ends well if everything works; says what was done.
pub async fn trial(args: &TrialArgs) -> anyhow::Result<()> {
    let limit = Duration::from_secs(args.timeout);
    let all = async {
        records(args).await.context("records")?;
        if let Some(namespace) = &args.topic_namespace {
            let client = crate::client().await?;
            resource(args, namespace, client).await.context("Topic")?;
        }
        if let Some(operator) = &args.operator {
            pages(operator).await.context("the operator's pages")?;
        }
        Ok(())
    };
    timeout(limit, all)
        .await
        .with_context(|| format!("not done after {} s", args.timeout))?
}

fn name() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("barnabas-test-{}", &id[..8])
}

/// Writes records to a topic of its own with acks=all, and reads them.
async fn records(args: &TrialArgs) -> anyhow::Result<()> {
    let admin = Admin::new(AdminOptions::new(args.bootstrap.clone()))?;
    let name = name();
    let new = NewTopic {
        name: name.as_str().into(),
        layout: Layout::Counts {
            partitions: 1,
            replication_factor: args.replicas,
        },
        configs: std::collections::BTreeMap::new(),
    };
    let created = admin.create_topics(&[new]).await?;
    let created = created.value.into_iter().next().context("no answer")??;
    let tried = there_and_back(&admin, &name).await;
    if let Some(id) = created.id {
        admin.delete_topics(&[id]).await?;
    }
    tried
}

async fn there_and_back(admin: &Admin, name: &str) -> anyhow::Result<()> {
    let partition = TopicPartition {
        topic: name.into(),
        partition: 0,
    };
    let values: Vec<Bytes> = (0..RECORDS)
        .map(|number| Bytes::from(format!("record {number}")))
        .collect();
    let first = loop {
        let leader = leader(admin, &partition).await?;
        let now = Timestamp::now().as_millisecond();
        match admin.produce(leader, &partition, &values, now).await {
            Ok(first) => break first,
            // The leader may not have heard yet that it leads.
            Err(AdminError::Refused { error, .. }) if is_early(error) => sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    };
    let mut read = Vec::new();
    while read.len() < values.len() {
        let leader = leader(admin, &partition).await?;
        let id = admin.metadata(Topics::Named(&[name.into()])).await?;
        let id = id.topics.first().and_then(|topic| topic.id);
        let next = first + read.len() as i64;
        let records = admin.fetch(leader, &partition, id, next).await?;
        for (offset, value) in records {
            let expected = first + read.len() as i64;
            ensure!(offset == expected, "offset {offset} after {expected}");
            read.push(value);
        }
    }
    ensure!(
        read == values,
        "what was read is not what was written: {read:?}"
    );
    info!(
        topic = name,
        records = RECORDS,
        "written with acks=all and read again"
    );
    Ok(())
}

fn is_early(error: KafkaError) -> bool {
    matches!(
        error,
        KafkaError::UnknownTopicOrPartition
            | KafkaError::NotLeaderOrFollower
            | KafkaError::LeaderNotAvailable
            | KafkaError::NotEnoughReplicas
    )
}

async fn leader(admin: &Admin, partition: &TopicPartition) -> anyhow::Result<BrokerId> {
    loop {
        let metadata = admin
            .metadata(Topics::Named(std::slice::from_ref(&partition.topic)))
            .await?;
        let topic = metadata.topics.first();
        let leader = topic
            .and_then(|topic| topic.partitions.first())
            .and_then(|one| one.leader);
        if let Some(leader) = leader {
            return Ok(leader);
        }
        sleep(PAUSE).await;
    }
}

/// A Topic becomes ready, is there in Kafka, and goes again.
async fn resource(args: &TrialArgs, namespace: &str, client: kube::Client) -> anyhow::Result<()> {
    let admin = Admin::new(AdminOptions::new(args.bootstrap.clone()))?;
    let api: Api<Topic> = Api::namespaced(client, namespace);
    let name = name();
    let topic: Topic = serde_json::from_value(serde_json::json!({
        "apiVersion": Topic::api_version(&()), "kind": Topic::kind(&()),
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"partitions": 2, "replicas": args.replicas},
    }))?;
    api.create(&PostParams::default(), &topic).await?;
    let begun = Instant::now();
    let tried = async {
        loop {
            let topic = api.get(&name).await?;
            let conditions = topic.status.iter().flat_map(|status| &status.conditions);
            let ready = conditions.into_iter().find(|one| one.type_ == "Ready");
            if ready.is_some_and(|one| one.status == "True") {
                break;
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("{} is not ready: {ready:?}", topic.name_any());
            }
            sleep(PAUSE).await;
        }
        let described = admin
            .metadata(Topics::Named(&[name.as_str().into()]))
            .await?;
        let partitions = described.topics.first().map(|topic| topic.partitions.len());
        ensure!(partitions == Some(2), "the topic has {partitions:?}");
        anyhow::Ok(())
    };
    let tried = tried.await;
    api.delete(&name, &DeleteParams::default()).await?;
    tried?;
    while api.get_opt(&name).await?.is_some() {
        sleep(PAUSE).await;
    }
    info!(topic = name, "a Topic became ready, and went");
    Ok(())
}

/// `/readyz` and `/metrics` answer.
async fn pages(address: &str) -> anyhow::Result<()> {
    for (path, content) in [("/readyz", ""), ("/metrics", "barnabas_operator")] {
        let mut stream = TcpStream::connect(address).await.context("connecting")?;
        let question = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let is_ok = answer.split_whitespace().nth(1) == Some("200");
        ensure!(is_ok && answer.contains(content), "{path}: {answer}");
    }
    info!(address, "the operator answers");
    Ok(())
}

//! The admin client against real brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_operator::admin::{
    Admin, AdminOptions, ConfigChanges, ConfigOp, ConfigResource, ConfigSource, Election,
    KafkaError, Layout, NewPartitions, NewTopic, Reassign,
};
use barnabas_operator::cluster::Cluster as View;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_changed_moved_and_deleted() {
    let options = ClusterOptions::three().with("auto.leader.rebalance.enable", false);
    let brokers = tokio::task::spawn_blocking(move || Cluster::start(&options).unwrap())
        .await
        .unwrap();
    let admin = Admin::new(AdminOptions::new(brokers.bootstrap())).unwrap();
    let view = View::new(admin.clone());
    let name = TopicName::from("orders");
    let partition = TopicPartition::new(name.clone(), 0);
    let new = |name: &str, layout: Layout, configs: &[(&str, &str)]| NewTopic {
        name: name.into(),
        layout,
        configs: configs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };

    // One item fails alone.
    let orders = Layout::Assignments(vec![ids(&[1, 2]), ids(&[2, 3])]);
    let topics = [
        new("orders", orders, &[("min.insync.replicas", "2")]),
        new("not/a/name", counts(1, 1), &[]),
        new("too-many", counts(1, 9), &[]),
    ];
    let created = admin.create_topics(&topics).await.unwrap().value;
    let id = created[0].as_ref().unwrap().id.unwrap();
    let error = |index: usize| created[index].as_ref().unwrap_err().error;
    assert_eq!(error(1), KafkaError::InvalidTopicException);
    assert_eq!(error(2), KafkaError::InvalidReplicationFactor);

    eventually("the topic is seen whole", async || {
        let view = view.refresh().await.unwrap();
        view.topics.get(&name).is_some_and(|topic| {
            topic.partitions.len() == 2 && topic.partitions.iter().all(|one| one.isr.len() == 2)
        })
    })
    .await;
    let seen = view.view();
    let topic = &seen.topics[&name];
    assert_eq!(seen.brokers.len(), 3);
    assert_eq!(topic.id, Some(id));
    assert_eq!(topic.partitions[1].replicas, ids(&[2, 3]));
    assert_eq!(topic.min_insync_replicas, 2);
    let overrides = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
    assert_eq!(topic.overrides, overrides);
    assert!(seen.log_dirs[&BrokerId(1)].total_bytes.is_some());
    assert_eq!(seen.bytes_on(BrokerId(1), &partition), Some(0));

    let more = [NewPartitions {
        topic: name.clone(),
        total: 3,
        assignments: vec![ids(&[3, 1])],
    }];
    assert_eq!(
        admin.create_partitions(&more).await.unwrap().value,
        [Ok(())]
    );

    let set = |resource: ConfigResource, key: &str, op: ConfigOp| ConfigChanges {
        resource,
        changes: vec![(key.to_owned(), op)],
    };
    let broker = ConfigResource::Broker(BrokerId(2));
    let rate = "leader.replication.throttled.rate";
    let changes = [
        set(
            ConfigResource::Topic(name.clone()),
            "retention.ms",
            ConfigOp::Set("5".into()),
        ),
        set(broker.clone(), rate, ConfigOp::Set("1000000".into())),
        set(
            ConfigResource::Topic(name.clone()),
            "no.such.key",
            ConfigOp::Set("5".into()),
        ),
        set(
            ConfigResource::Topic(name.clone()),
            "leader.replication.throttled.replicas",
            ConfigOp::Append("0:1".into()),
        ),
    ];
    let changed = admin
        .incremental_alter_configs(&changes[..2])
        .await
        .unwrap();
    assert_eq!(changed, [Ok(()), Ok(())]);
    let changed = admin
        .incremental_alter_configs(&changes[2..3])
        .await
        .unwrap();
    assert_eq!(
        changed[0].as_ref().unwrap_err().error,
        KafkaError::InvalidConfig
    );
    let changed = admin
        .incremental_alter_configs(&changes[3..])
        .await
        .unwrap();
    assert_eq!(changed, [Ok(())]);
    eventually("a broker's own setting is told by itself", async || {
        let described = admin
            .describe_configs(std::slice::from_ref(&broker), &[rate])
            .await
            .unwrap();
        let entries = described[0].as_ref().unwrap();
        entries.len() == 1
            && entries[0].value.as_deref() == Some("1000000")
            && entries[0].source == ConfigSource::DynamicBroker
    })
    .await;

    let reassign = |partition: i32, target: Option<&[i32]>| Reassign {
        partition: TopicPartition::new(name.clone(), partition),
        target: target.map(ids),
    };
    let moves = [
        reassign(0, Some(&[3, 2])),
        reassign(9, Some(&[1])),
        reassign(1, None),
    ];
    let errors = admin.alter_partition_reassignments(&moves).await.unwrap();
    let codes: Vec<_> = errors
        .iter()
        .map(|(partition, error)| (partition.partition, error.error))
        .collect();
    let expected = [
        (1, KafkaError::NoReassignmentInProgress),
        (9, KafkaError::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);
    eventually("the partition has moved", async || {
        let view = view.refresh_replicas().await.unwrap();
        let moved = view.partition(&partition).unwrap();
        view.reassignments.is_empty() && moved.replicas == ids(&[3, 2]) && moved.isr.len() == 2
    })
    .await;
    let all = [partition.clone(), TopicPartition::new(name.clone(), 1)];
    let errors = admin
        .elect_leaders(Election::Preferred, &all)
        .await
        .unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    eventually("the preferred replica leads", async || {
        let view = view
            .refresh_topics(std::slice::from_ref(&name))
            .await
            .unwrap();
        view.partition(&partition).unwrap().leader == Some(BrokerId(3))
    })
    .await;
    assert!(admin.connections().await <= 6);

    let deleted = admin.delete_topics(&[id]).await.unwrap().value;
    assert_eq!(deleted, [Ok(())]);
    eventually("the topic is gone", async || {
        let view = view
            .refresh_topics(std::slice::from_ref(&name))
            .await
            .unwrap();
        !view.topics.contains_key(&name)
    })
    .await;
    // Kafka's controller knows the id a little longer than its brokers know the topic.
    eventually("the id is unknown", async || {
        let deleted = admin.delete_topics(&[id]).await.unwrap().value;
        deleted[0].as_ref().unwrap_err().error == KafkaError::UnknownTopicId
    })
    .await;
}

fn counts(partitions: i32, replication_factor: i16) -> Layout {
    Layout::Counts {
        partitions,
        replication_factor,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_controller_is_found_when_one_dies() {
    let options = ClusterOptions::three().with("zookeeper.session.timeout.ms", 6000);
    let mut brokers = tokio::task::spawn_blocking(move || Cluster::start(&options).unwrap())
        .await
        .unwrap();
    let admin = Admin::new(AdminOptions::new(brokers.bootstrap())).unwrap();
    let controller = admin.describe_cluster().await.unwrap().controller.unwrap();
    brokers.kill(controller.0);
    eventually("topics can be created again", async || {
        let new = NewTopic {
            name: "after".into(),
            layout: counts(1, 2),
            configs: BTreeMap::new(),
        };
        match admin.create_topics(&[new]).await {
            Ok(created) => match &created.value[0] {
                Ok(_) => true,
                Err(error) => error.error == KafkaError::TopicAlreadyExists,
            },
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                false
            }
        }
    })
    .await;
    let found = admin.describe_cluster().await.unwrap().controller.unwrap();
    assert_ne!(found, controller);
}

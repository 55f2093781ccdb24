//! Registration, configurations and topics, on any ensemble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barnabas_broker::zookeeper::{
    BrokerRegistration, ConfigEntity, ConfigListener, ConfigWriteError, CoordinationEvent,
    CreateMode, FormerOwner, RegistrationError, TopicStoreError, Watch, ZooKeeper,
};
use barnabas_core::control::{Endpoint, SecurityProtocol};
use barnabas_core::ids::{BrokerId, TopicId, TopicPartition};
use barnabas_core::znodes::{
    ConfigChange, ControllerSeat, Feature, PartitionAssignment, TopicAssignment,
};
use tokio::sync::mpsc;

use super::subject::{Client, Ensemble, in_time, next};

const NOW: Duration = Duration::ZERO;

async fn broker(ensemble: &dyn Ensemble) -> (Client, Arc<ZooKeeper>) {
    let client = ensemble.connect().await;
    let zookeeper = ZooKeeper::over(client.coordination.clone());
    zookeeper.create_base_paths().await.unwrap();
    (client, zookeeper)
}

fn registration_of(id: i32, port: u16) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            security_protocol: SecurityProtocol::Plaintext,
            host: "h".into(),
            port,
        }],
        rack: None,
        jmx_port: -1,
        timestamp_ms: 1,
        features: BTreeMap::new(),
        fast_failover: false,
    }
}

pub(super) async fn registration(ensemble: &dyn Ensemble) {
    let (client, zookeeper) = broker(ensemble).await;
    let registration = registration_of(1, 9092);
    let epoch = zookeeper.register_broker(&registration, FormerOwner::MayBeAlive, NOW);
    let epoch = epoch.await.unwrap();
    let path = BrokerRegistration::path(BrokerId(1));
    let stat = client
        .coordination
        .exists(&path, Watch::No)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((stat.czxid, stat.version), (epoch, 1));
    assert_eq!(stat.ephemeral_owner, client.coordination.session_id());
    assert_eq!(
        zookeeper.registered_brokers().await,
        Ok(vec![(registration.clone(), epoch)])
    );
    // Asked again in the same session, as after a lost reply, it is the same registration.
    let again = zookeeper.register_broker(&registration, FormerOwner::MayBeAlive, NOW);
    assert_eq!(again.await, Ok(epoch));
    zookeeper
        .update_registration(&registration_of(1, 9093))
        .await
        .unwrap();
    let brokers = zookeeper.registered_brokers().await;
    assert_eq!(brokers, Ok(vec![(registration_of(1, 9093), epoch)]));
    zookeeper.close().await;
    let (_other, zookeeper) = broker(ensemble).await;
    assert_eq!(zookeeper.registered_brokers().await, Ok(vec![]));
}

pub(super) async fn registration_after_expiry(ensemble: &dyn Ensemble) {
    let (client, zookeeper) = broker(ensemble).await;
    let registration = registration_of(1, 9092);
    let register = || zookeeper.register_broker(&registration, FormerOwner::MayBeAlive, NOW);
    let first = register().await.unwrap();
    client.expire().await;
    let second = register().await.unwrap();
    assert!(second > first, "a new registration is a new broker epoch");
}

pub(super) async fn registration_of_a_dead_predecessor(ensemble: &dyn Ensemble) {
    let (dead, predecessor) = broker(ensemble).await;
    let registration = registration_of(1, 9092);
    let first = predecessor.register_broker(&registration, FormerOwner::MayBeAlive, NOW);
    let first = first.await.unwrap();
    let seat = Some(ControllerSeat::new(BrokerId(1), 0).encode());
    let elected = dead
        .coordination
        .create(ControllerSeat::PATH, seat, CreateMode::Ephemeral);
    elected.await.unwrap();
    let (_client, zookeeper) = broker(ensemble).await;
    let second = zookeeper.register_broker(&registration, FormerOwner::IsDead, NOW);
    let second = second.await.unwrap();
    assert!(second > first);
    assert_eq!(
        zookeeper.registered_brokers().await,
        Ok(vec![(registration, second)])
    );
    let seat = zookeeper
        .coordination()
        .exists(ControllerSeat::PATH, Watch::No)
        .await;
    assert_eq!(seat, Ok(None), "a dead controller keeps no seat");
}

pub(super) async fn registration_while_occupied(ensemble: &dyn Ensemble) {
    let (_first, owner) = broker(ensemble).await;
    let registration = registration_of(1, 9092);
    let epoch = owner
        .register_broker(&registration, FormerOwner::MayBeAlive, NOW)
        .await;
    let (_second, zookeeper) = broker(ensemble).await;
    let refused = zookeeper
        .register_broker(&registration, FormerOwner::MayBeAlive, NOW)
        .await;
    assert!(
        matches!(refused, Err(RegistrationError::IdInUse { .. })),
        "{refused:?}"
    );
    let patience = Duration::from_secs(20);
    let waiting = zookeeper.register_broker(&registration, FormerOwner::MayBeAlive, patience);
    let (registered, ()) = futures::join!(waiting, async {
        tokio::task::yield_now().await;
        owner.close().await;
    });
    assert!(registered.unwrap() > epoch.unwrap());
}

pub(super) async fn endpoint_clash(ensemble: &dyn Ensemble) {
    let (_first, one) = broker(ensemble).await;
    let registration = registration_of(1, 9092);
    one.register_broker(&registration, FormerOwner::MayBeAlive, NOW)
        .await
        .unwrap();
    let (_second, two) = broker(ensemble).await;
    assert_eq!(two.check_endpoints(&registration_of(2, 9093)).await, Ok(()));
    assert_eq!(two.check_endpoints(&registration_of(1, 9092)).await, Ok(()));
    let clash = two.check_endpoints(&registration_of(2, 9092)).await;
    let expected = RegistrationError::EndpointInUse {
        other: BrokerId(1),
        endpoint: "h:9092".into(),
    };
    assert_eq!(clash, Err(expected));
}

pub(super) async fn cluster_and_broker_ids(ensemble: &dyn Ensemble) {
    let (_first, one) = broker(ensemble).await;
    let (_second, two) = broker(ensemble).await;
    let (a, b) = futures::join!(one.cluster_id(), two.cluster_id());
    let id = a.unwrap();
    assert_eq!((id.len(), &id), (22, b.as_ref().unwrap()));
    assert_eq!(one.cluster_id().await, Ok(id));
    assert_eq!(one.generate_broker_id(1000).await, Ok(BrokerId(1001)));
    assert_eq!(two.generate_broker_id(1000).await, Ok(BrokerId(1002)));
    // A node that is not there yet is waited for, one that is there is followed.
    let mut events = one.coordination().subscribe();
    assert_eq!(one.features().await, Ok(None));
    let feature = Feature::enabled(BTreeMap::new());
    let write = |feature: &Feature| Some(feature.encode());
    let zk = two.coordination();
    zk.create(Feature::PATH, write(&feature), CreateMode::Persistent)
        .await
        .unwrap();
    for version in 0..2 {
        let event = next(&mut events).await;
        assert!(matches!(&event, CoordinationEvent::Node { path, .. } if path == Feature::PATH));
        assert_eq!(one.features().await, Ok(Some((feature.clone(), version))));
        zk.set(Feature::PATH, write(&feature), None).await.unwrap();
    }
}

async fn seat_controller(zookeeper: &ZooKeeper, kraft_controller_epoch: i32) {
    let seat = ControllerSeat {
        kraft_controller_epoch,
        ..ControllerSeat::new(BrokerId(1), 0)
    };
    let zk = zookeeper.coordination();
    // Fails the first time, when there is none.
    let _ = zk.delete(ControllerSeat::PATH, None).await;
    let data = Some(seat.encode());
    zk.create(ControllerSeat::PATH, data, CreateMode::Ephemeral)
        .await
        .unwrap();
}

fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn changes(zookeeper: &ZooKeeper) -> Vec<String> {
    let zk = zookeeper.coordination();
    let mut changes = Vec::new();
    for name in zk.children(ConfigChange::PARENT, Watch::No).await.unwrap() {
        let (data, _) = zk
            .get(&ConfigChange::path(&name), Watch::No)
            .await
            .unwrap()
            .unwrap();
        changes.push(ConfigChange::decode(&data).unwrap().0.entity_path());
    }
    changes
}

pub(super) async fn configurations(ensemble: &dyn Ensemble) {
    let (_client, zookeeper) = broker(ensemble).await;
    let topic = ConfigEntity::Topic("t".into());
    let wanted = config(&[("retention.ms", "1000")]);
    let refused = zookeeper.write_config(&topic, wanted.clone()).await;
    assert_eq!(refused, Err(ConfigWriteError::ControllerMoved));
    seat_controller(&zookeeper, 5).await;
    let refused = zookeeper.write_config(&topic, wanted.clone()).await;
    assert_eq!(refused, Err(ConfigWriteError::ControllerMoved));
    assert_eq!(changes(&zookeeper).await, Vec::<String>::new());

    seat_controller(&zookeeper, -1).await;
    assert_eq!(zookeeper.read_config(&topic).await, Ok(BTreeMap::new()));
    zookeeper
        .write_config(&topic, wanted.clone())
        .await
        .unwrap();
    assert_eq!(zookeeper.read_config(&topic).await, Ok(wanted));
    let other = config(&[("flush.ms", "5")]);
    zookeeper.write_config(&topic, other.clone()).await.unwrap();
    assert_eq!(zookeeper.read_config(&topic).await, Ok(other));
    // Those of topics and brokers stay when they are empty.
    zookeeper
        .write_config(&topic, BTreeMap::new())
        .await
        .unwrap();
    zookeeper
        .write_config(&ConfigEntity::DefaultBroker, BTreeMap::new())
        .await
        .unwrap();
    let all = zookeeper.read_all_configs().await.unwrap();
    let all: Vec<String> = all.iter().map(|(entity, _)| entity.entity_path()).collect();
    assert_eq!(all, ["topics/t", "brokers/<default>"]);
    let expected = ["topics/t", "topics/t", "topics/t", "brokers/<default>"];
    assert_eq!(changes(&zookeeper).await, expected);
}

pub(super) async fn quota_configurations_go_when_empty(ensemble: &dyn Ensemble) {
    let (_client, zookeeper) = broker(ensemble).await;
    seat_controller(&zookeeper, -1).await;
    let zk = zookeeper.coordination();
    let paths = async || {
        let mut paths = Vec::new();
        for parent in ["/config/users", "/config/clients"] {
            for name in zk.children(parent, Watch::No).await.unwrap() {
                let path = format!("{parent}/{name}");
                let clients = format!("{path}/clients");
                let clients = zk.children(&clients, Watch::No).await.unwrap();
                paths.push(format!("{path} {}", clients.join(" ")));
            }
        }
        paths
    };
    let quota = config(&[("producer_byte_rate", "1024")]);
    let user = ConfigEntity::User(Some("a b".into()));
    let one = ConfigEntity::UserClient(Some("a b".into()), Some("c1".into()));
    let two = ConfigEntity::UserClient(Some("a b".into()), None);
    let client = ConfigEntity::Client(Some("c*1".into()));
    for entity in [&one, &two, &client] {
        zookeeper.write_config(entity, quota.clone()).await.unwrap();
    }
    let expected = ["/config/users/a%20b <default> c1", "/config/clients/c%2A1 "];
    assert_eq!(paths().await, expected);
    assert_eq!(zookeeper.read_all_configs().await.unwrap().len(), 4);
    zookeeper
        .write_config(&client, BTreeMap::new())
        .await
        .unwrap();
    zookeeper.write_config(&one, BTreeMap::new()).await.unwrap();
    assert_eq!(paths().await, ["/config/users/a%20b <default>"]);
    // A user's node stays while there are clients below it, and then while it has something itself.
    zookeeper
        .write_config(&user, BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(paths().await, ["/config/users/a%20b <default>"]);
    zookeeper.write_config(&user, quota.clone()).await.unwrap();
    zookeeper.write_config(&two, BTreeMap::new()).await.unwrap();
    assert_eq!(paths().await, ["/config/users/a%20b "]);
    assert_eq!(zookeeper.read_config(&user).await, Ok(quota.clone()));
    zookeeper.write_config(&two, quota).await.unwrap();
    zookeeper
        .write_config(&user, BTreeMap::new())
        .await
        .unwrap();
    zookeeper.write_config(&two, BTreeMap::new()).await.unwrap();
    assert_eq!(paths().await, Vec::<String>::new());
    assert_eq!(changes(&zookeeper).await.len(), 11);
}

pub(super) async fn configuration_changes_are_followed(ensemble: &dyn Ensemble) {
    let (client, zookeeper) = broker(ensemble).await;
    let (_other, writer) = broker(ensemble).await;
    seat_controller(&writer, -1).await;
    let topic = |name: &str| ConfigEntity::Topic(name.to_owned());
    writer
        .write_config(&topic("old"), config(&[("flush.ms", "1")]))
        .await
        .unwrap();
    let (applied, mut changes) = mpsc::unbounded_channel();
    let mut listener = ConfigListener::new(
        zookeeper.clone(),
        Box::new(move |entity, config| {
            applied.send((entity, config.len())).unwrap();
        }),
    );
    in_time(listener.load()).await.unwrap();
    // Once for the notification, once for being there.
    assert_eq!(changes.try_recv(), Ok((topic("old"), 1)));
    assert_eq!(changes.try_recv(), Ok((topic("old"), 1)));
    assert!(changes.try_recv().is_err());
    let running = tokio::spawn(listener.run());
    writer
        .write_config(&topic("a"), config(&[("flush.ms", "1")]))
        .await
        .unwrap();
    assert_eq!(in_time(changes.recv()).await, Some((topic("a"), 1)));
    // What nobody understands is passed over; version 1 is understood.
    let zk = writer.coordination();
    let mode = CreateMode::PersistentSequential;
    let v1 = br#"{"version":1,"entity_type":"topics","entity_name":"a"}"#;
    for data in [b"nonsense".as_slice(), b"{}", v1] {
        zk.create(&ConfigChange::path_prefix(), Some(data.to_vec()), mode)
            .await
            .unwrap();
    }
    assert_eq!(in_time(changes.recv()).await, Some((topic("a"), 1)));
    client.cut_off().await;
    writer
        .write_config(&topic("away"), BTreeMap::new())
        .await
        .unwrap();
    client.reconnect().await;
    assert_eq!(in_time(changes.recv()).await, Some((topic("away"), 0)));
    client.expire().await;
    writer
        .write_config(&topic("renewed"), BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(in_time(changes.recv()).await, Some((topic("renewed"), 0)));
    running.abort();
}

pub(super) async fn topics(ensemble: &dyn Ensemble) {
    let (_client, zookeeper) = broker(ensemble).await;
    seat_controller(&zookeeper, -1).await;
    let id = TopicId::random(&mut rand::rng());
    let replicas = || vec![BrokerId(1), BrokerId(2)];
    let partition = PartitionAssignment {
        adding_replicas: vec![BrokerId(2)],
        ..PartitionAssignment::new(replicas())
    };
    let assignment = TopicAssignment {
        topic_id: Some(id),
        partitions: BTreeMap::from([(0, partition.clone())]),
    };
    let overrides = config(&[("cleanup.policy", "compact")]);
    zookeeper
        .create_topic("t", &assignment, overrides.clone())
        .await
        .unwrap();
    assert_eq!(zookeeper.topics().await, Ok(vec!["t".to_owned()]));
    let again = zookeeper
        .create_topic("t", &assignment, BTreeMap::new())
        .await;
    assert_eq!(again, Err(TopicStoreError::TopicExists("t".into())));
    let entity = ConfigEntity::Topic("t".into());
    assert_eq!(
        zookeeper.read_config(&entity).await,
        Ok(overrides),
        "as it was"
    );
    assert_eq!(changes(&zookeeper).await, Vec::<String>::new());

    let added = BTreeMap::from([(1, replicas())]);
    zookeeper.add_partitions("t", &added).await.unwrap();
    let unknown = zookeeper.add_partitions("none", &added).await;
    assert_eq!(unknown, Err(TopicStoreError::UnknownTopic("none".into())));
    let found = zookeeper
        .topic_assignments(["t".to_owned(), "none".to_owned()])
        .await
        .unwrap();
    let expected = TopicAssignment {
        topic_id: Some(id),
        partitions: BTreeMap::from([(0, partition), (1, PartitionAssignment::new(replicas()))]),
    };
    assert_eq!(found, BTreeMap::from([("t".to_owned(), expected)]));
    let states = zookeeper
        .partition_states(&[TopicPartition::new("t", 0)])
        .await;
    assert_eq!(states, Ok(BTreeMap::new()));

    zookeeper.mark_for_deletion("t").await.unwrap();
    let again = zookeeper.mark_for_deletion("t").await;
    assert_eq!(
        again,
        Err(TopicStoreError::AlreadyMarkedForDeletion("t".into()))
    );
    assert_eq!(
        zookeeper.topics_marked_for_deletion().await,
        Ok(vec!["t".to_owned()])
    );
}

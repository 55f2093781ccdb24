//! The task on a ZooKeeper in memory, with a broker that notes what it is told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use barnabas_core::control::{
    BrokerAddress, ControlHeader, Endpoint, LiveBroker, SecurityProtocol, UpdateMetadata,
};
use barnabas_core::ids::TopicId;
use barnabas_core::znodes::{PartitionAssignment, TopicAssignment};
use futures::FutureExt;

use super::*;
use crate::metadata_cache::MetadataCache;
use crate::peer::{PeerError, PeerNetwork, PeerStream};
use crate::zookeeper::memory::{MemoryEnsemble, MemoryZooKeeper};
use crate::zookeeper::{Coordination, CreateMode, FormerOwner, Watch};

/// Obeys at once.
struct Obedient {
    metadata: Arc<MetadataCache>,
    told: Mutex<Vec<String>>,
}

impl ControlTarget for Obedient {
    fn deliver(&self, request: ControlRequest) -> BoxFuture<'_, ControlOutcome> {
        let (kind, partitions) = match &request {
            ControlRequest::LeaderAndIsr(request) => {
                let partitions = request.partitions.iter();
                let partitions = partitions.map(|of| of.topic_partition.clone());
                ("LeaderAndIsr", partitions.collect())
            }
            ControlRequest::UpdateMetadata(request @ UpdateMetadata { .. }) => {
                self.metadata.update(request);
                ("UpdateMetadata", Vec::new())
            }
            ControlRequest::StopReplica(request) => {
                let partitions = request.partitions.iter();
                let partitions = partitions.map(|of| of.topic_partition.clone());
                ("StopReplica", partitions.collect())
            }
        };
        let mut told = self.told.lock().unwrap();
        told.push(format!("{kind} {}", partitions.len()));
        let outcome = ControlOutcome {
            result: Ok(()),
            partitions: partitions.into_iter().map(|of| (of, Ok(()))).collect(),
        };
        async move { outcome }.boxed()
    }
}

struct Rig {
    client: Arc<MemoryZooKeeper>,
    zookeeper: Arc<ZooKeeper>,
    metadata: Arc<MetadataCache>,
    target: Arc<Obedient>,
    controller: Arc<ControllerHandle>,
}

impl Rig {
    async fn create(&self, topic: &TopicAssignment) {
        let mut status = self.controller.status();
        status.wait_for(|status| status.is_active).await.unwrap();
        let created = self.zookeeper.create_topic("t", topic, BTreeMap::new());
        created.await.unwrap();
    }
}

async fn rig() -> Rig {
    rig_over(MemoryEnsemble::new().connect()).await
}

async fn rig_over(client: Arc<MemoryZooKeeper>) -> Rig {
    let zookeeper = ZooKeeper::over(client.clone());
    zookeeper.create_base_paths().await.unwrap();
    let registration = BrokerRegistration {
        id: BrokerId(20),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: "localhost".to_owned(),
            port: 9092,
        }],
        rack: None,
        jmx_port: -1,
        timestamp_ms: 0,
        features: BTreeMap::new(),
        fast_failover: true,
    };
    let epoch = zookeeper
        .register_broker(&registration, FormerOwner::MayBeAlive, Duration::ZERO)
        .await
        .unwrap();
    let given = [("zookeeper.connect".to_owned(), "localhost:2181".to_owned())];
    let config = BrokerConfig::parse(&given.into()).unwrap();
    let metadata = MetadataCache::new();
    let target = Arc::new(Obedient {
        metadata: metadata.clone(),
        told: Mutex::default(),
    });
    let controller = ControllerHandle::start(ControllerOptions {
        zookeeper: zookeeper.clone(),
        config: Arc::new(LiveConfig::new(config, BrokerId(20)).unwrap()),
        registration,
        broker_epoch: Arc::new(AtomicI64::new(epoch)),
        target: target.clone(),
        remote: None,
    });
    Rig {
        client,
        zookeeper,
        metadata,
        target,
        controller,
    }
}

fn topic(partitions: i32) -> TopicAssignment {
    let replicas = || PartitionAssignment::new(vec![BrokerId(20)]);
    TopicAssignment {
        topic_id: Some(TopicId::random(&mut rand::rng())),
        partitions: (0..partitions).map(|number| (number, replicas())).collect(),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_topic_comes_and_goes() {
    let rig = rig().await;
    rig.create(&topic(3)).await;
    let has_topic = |wanted: usize| {
        rig.metadata.wait_for(PATIENCE, move |image| {
            let found = image.topic("t").map_or(0, |topic| topic.partitions.len());
            found == wanted
        })
    };
    assert!(has_topic(3).await);
    rig.zookeeper.mark_for_deletion("t").await.unwrap();
    assert!(has_topic(0).await);
    let mut status = rig.controller.status();
    let gone = status.wait_for(|status| status.totals.topics == 0 && status.epoch == 1);
    gone.await.unwrap();
    assert_eq!(rig.zookeeper.topics().await.unwrap(), Vec::<String>::new());
    let marked = rig.zookeeper.topics_marked_for_deletion().await;
    assert_eq!(marked.unwrap(), Vec::<String>::new());
    rig.controller.resign().await;
    assert!(!rig.controller.is_active());
}

#[tokio::test]
async fn ten_thousand_partitions_are_a_few_requests() {
    let rig = rig().await;
    rig.create(&topic(10_000)).await;
    let all = rig.metadata.wait_for(PATIENCE, |image| {
        image
            .topic("t")
            .is_some_and(|topic| topic.partitions.len() == 10_000)
    });
    assert!(all.await);
    let told = rig.target.told.lock().unwrap().clone();
    let leader_and_isr = told.iter().filter(|told| told.starts_with("LeaderAndIsr"));
    assert_eq!(leader_and_isr.collect::<Vec<_>>(), ["LeaderAndIsr 10000"]);
}

#[tokio::test]
async fn a_new_session_means_a_new_epoch() {
    let rig = rig().await;
    let mut status = rig.controller.status();
    status.wait_for(|status| status.epoch == 1).await.unwrap();
    let first = rig.controller.broker_epoch();
    rig.client.expire().await;
    status.wait_for(|status| status.epoch == 2).await.unwrap();
    assert!(rig.controller.broker_epoch() > first);
    let ids = rig
        .controller
        .allocate_producer_ids(BrokerId(20), rig.controller.broker_epoch());
    assert_eq!(ids.await, Ok(0..=999));
    let stale = rig.controller.allocate_producer_ids(BrokerId(20), first);
    let expected = Err(AllocateProducerIdsError::StaleBrokerEpoch);
    assert_eq!(stale.await, expected);
}

#[tokio::test]
async fn who_is_not_controller_says_so() {
    let rig = rig().await;
    let mut status = rig.controller.status();
    status.wait_for(|status| status.is_active).await.unwrap();
    rig.controller.resign().await;
    let ids = rig.controller.allocate_producer_ids(BrokerId(20), -1);
    let expected = Err(AllocateProducerIdsError::NotController);
    assert_eq!(ids.await, expected);
}

#[tokio::test]
async fn a_broker_that_was_taken_for_dead_registers_anew_and_asks_to_be_left_to_its_session() {
    let rig = rig().await;
    let path = BrokerRegistration::path(BrokerId(20));
    let coordination: &dyn Coordination = &*rig.client;
    let (_, first) = coordination.get(&path, Watch::No).await.unwrap().unwrap();
    coordination.delete(&path, None).await.unwrap();
    let (registration, second) = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some((data, stat)) = coordination.get(&path, Watch::No).await.unwrap() {
                break (
                    BrokerRegistration::decode(BrokerId(20), &data).unwrap(),
                    stat,
                );
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(second.czxid > first.czxid, "a new broker epoch");
    assert!(!registration.fast_failover);
    // The second time is no different from the first.
    coordination.delete(&path, None).await.unwrap();
    let again = async {
        while rig.controller.broker_epoch() <= second.czxid {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

/// Nobody answers, as when all are frozen.
struct Frozen(tokio::sync::mpsc::UnboundedSender<BrokerId>);

impl PeerNetwork for Frozen {
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> futures::future::BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        self.0.send(address.id).unwrap();
        futures::future::pending().boxed()
    }
}

/// Who waits for a frozen controller turns to its successor when there is one, not when the request times out.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_controller_that_was_replaced() {
    let ensemble = MemoryEnsemble::new();
    let other = ensemble.connect();
    let coordination: &dyn Coordination = &*other;
    let seat = barnabas_core::znodes::ControllerSeat::new(BrokerId(1), 0).encode();
    coordination
        .create("/controller", Some(seat), CreateMode::Ephemeral)
        .await
        .unwrap();
    let rig = rig_over(ensemble.connect()).await;
    let (dialled, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let given = [("zookeeper.connect".to_owned(), "localhost:2181".to_owned())];
    let config = BrokerConfig::parse(&given.into()).unwrap();
    let link = ControllerLink::new(ControllerLinkOptions {
        network: Arc::new(Frozen(dialled)),
        controller: rig.controller.clone(),
        metadata: rig.metadata.clone(),
        config: Arc::new(LiveConfig::new(config, BrokerId(20)).unwrap()),
    });
    let is_controlled_by = |id: i32| {
        let broker = |id: i32| LiveBroker {
            id: BrokerId(id),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                security_protocol: SecurityProtocol::Plaintext,
                host: format!("h{id}"),
                port: 9092,
            }],
            rack: None,
        };
        rig.metadata.update(&UpdateMetadata {
            header: ControlHeader {
                controller_id: BrokerId(id),
                controller_epoch: id,
                broker_epoch: -1,
            },
            partitions: Arc::default(),
            live_brokers: [broker(1), broker(2)].into(),
        });
    };
    is_controlled_by(1);
    let began = tokio::time::Instant::now();
    let waiting = tokio::spawn(async move { link.allocate_producer_ids().await });
    assert_eq!(asked.recv().await, Some(BrokerId(1)));
    is_controlled_by(2);
    assert_eq!(asked.recv().await, Some(BrokerId(2)));
    assert!(began.elapsed() < Duration::from_secs(1));
    waiting.abort();
}

//! A broker for tests: everything behind the handlers is real, files and ZooKeeper are in memory.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::control::{
    ControlHeader, ControlOutcome, Endpoint, LeaderAndIsr, LeaderAndIsrPartition, Leadership,
    LiveBroker, PartitionMetadata, SecurityProtocol, UpdateMetadata,
};
use barnabas_core::ids::{BrokerId, TopicId, TopicPartition};
use barnabas_core::znodes::{BrokerRegistration, ConfigEntity};
use bytes::Bytes;
use futures::FutureExt as _;

use super::dispatch::{Outcome, dispatch};
use super::{Broker, Call, Connection, Context, Principal, Section};
use crate::clock;
use crate::config::LiveConfig;
use crate::controller::{
    ControllerHandle, ControllerLink, ControllerLinkOptions, ControllerOptions,
};
use crate::coordinator::markers::MarkerWriter;
use crate::coordinator::transactions::CompleterOptions;
use crate::coordinator::{
    GroupCoordinator, TransactionCoordinator, TransactionVerifier, TransactionVerifierOptions,
};
use crate::files::Files;
use crate::files::memory::Memory;
use crate::log::{LogDirsOptions, LogManager};
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::peer::{PeerNetwork, TcpNetwork};
use crate::producer_ids::ProducerIdManager;
use crate::quota::ClientQuotas;
use crate::replica::fetch_session_cache::FetchSessions;
use crate::replica::{IsrChanges, ReplicaManager, ReplicaManagerOptions, ZooKeeperTopicConfigs};
use crate::topics::TopicAdmin;
use crate::zookeeper::ZooKeeper;
use crate::zookeeper::memory::MemoryEnsemble;

/// Id of the broker.
pub(crate) const BROKER: BrokerId = BrokerId(20);

/// What a [`TestBroker`] is made of.
pub(crate) struct Setup<'a> {
    pub(crate) id: BrokerId,
    pub(crate) settings: &'a [(&'a str, &'a str)],
    pub(crate) files: Arc<dyn Files>,
    /// The same, unless they are on disk.
    pub(crate) memory: Memory,
    pub(crate) network: Arc<dyn PeerNetwork>,
    pub(crate) isr: Arc<dyn IsrChanges>,
}

/// A broker without sockets, and the files that it writes.
pub(crate) struct TestBroker {
    pub(crate) broker: Arc<Broker>,
    pub(crate) files: Memory,
    pub(crate) connection: Connection,
    call: Call,
}

impl TestBroker {
    pub(crate) fn new() -> Self {
        Self::with_settings(&[])
    }

    /// A broker whose file says `settings`, beside its id and two log directories.
    pub(crate) fn with_settings(settings: &[(&str, &str)]) -> Self {
        let files = Memory::new();
        files.set_clock_ms(clock::wall_clock_ms());
        Self::build(Setup {
            id: BROKER,
            settings,
            files: Arc::new(files.clone()),
            memory: files,
            network: Arc::new(TcpNetwork),
            isr: Arc::new(OnceLock::<Arc<ControllerLink>>::new()),
        })
    }

    /// A broker on what it is given.
    pub(crate) fn build(setup: Setup<'_>) -> Self {
        let broker_id = setup.id;
        let id = broker_id.to_string();
        let defaults = [
            ("broker.id", id.as_str()),
            ("zookeeper.connect", "localhost:2181"),
            ("log.dirs", "/a,/b"),
            ("log.index.size.max.bytes", "4096"),
        ];
        let given: BTreeMap<String, String> = defaults
            .iter()
            .chain(setup.settings)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let config = BrokerConfig::parse(&given).unwrap();
        let live = Arc::new(LiveConfig::new(config, broker_id).unwrap());
        let config = live.broker();
        let options = LogDirsOptions {
            log_dirs: config.log_dirs.iter().map(PathBuf::from).collect(),
            ..LogDirsOptions::from_config(&config)
        };
        let logs = LogManager::open(options, setup.files, {
            let live = live.clone();
            move |topic| live.topic(topic)
        })
        .unwrap();
        let zookeeper = ZooKeeper::over(MemoryEnsemble::new().connect());
        let metadata = MetadataCache::new();
        let metrics = Arc::new(Metrics::default());
        let replicas = ReplicaManager::new(ReplicaManagerOptions {
            broker_id,
            replica_lag_max: Duration::from_millis(config.replica_lag_time_max_ms as u64),
            logs: logs.clone(),
            metadata: metadata.clone(),
            topic_configs: Arc::new(ZooKeeperTopicConfigs {
                config: live.clone(),
                zookeeper: zookeeper.clone(),
            }),
            isr: setup.isr,
            network: setup.network.clone(),
            config: live.clone(),
            metrics: metrics.clone(),
        });
        let controller = idle_controller(&live, &zookeeper, &replicas);
        let peers = setup.network;
        let controller_link = ControllerLink::new(ControllerLinkOptions {
            network: peers.clone(),
            controller: controller.clone(),
            metadata: metadata.clone(),
            config: live.clone(),
        });
        let groups = GroupCoordinator::new(live.clone());
        let transactions = TransactionCoordinator::new(CompleterOptions {
            broker_id,
            config: live.clone(),
            metadata: metadata.clone(),
            zookeeper: zookeeper.clone(),
            network: peers.clone(),
            local: MarkerWriter::new(replicas.clone(), groups.clone(), live.clone()),
        });
        let verifier = TransactionVerifier::new(TransactionVerifierOptions {
            broker_id,
            network: peers.clone(),
            metadata: metadata.clone(),
            config: live.clone(),
            transactions: transactions.clone(),
        });
        let quotas = Arc::new(ClientQuotas::new(&live.broker()));
        let broker = Arc::new(Broker {
            peers,
            topics: TopicAdmin::new(zookeeper.clone(), live.clone(), metadata.clone()),
            producer_ids: ProducerIdManager::new(controller_link.clone()),
            controller_link,
            broker_id,
            cluster_id: "DUlsPUxIT0-iUYpZZPU9Mg".to_owned(),
            groups,
            transactions,
            verifier,
            config: live,
            metadata,
            metrics,
            zookeeper,
            logs,
            replicas,
            fetch_sessions: Arc::new(FetchSessions::new(1000)),
            controller,
            quotas,
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        Self {
            broker,
            files: setup.memory,
            connection: Connection {
                id: 1,
                listener: Arc::from("PLAINTEXT"),
                peer_address: address,
                principal: Principal::anonymous(),
            },
            call: Call::new(100),
        }
    }

    pub(crate) fn context(&self, version: i16) -> Context<'_> {
        Context {
            broker: &self.broker,
            connection: &self.connection,
            version,
            client_id: Some("test"),
            call: &self.call,
        }
    }

    /// Gives a topic other settings, before or after it is made.
    pub(crate) fn configure(&self, topic: &str, settings: &[(&str, &str)]) -> Arc<TopicConfig> {
        let overrides = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let entity = ConfigEntity::Topic(topic.to_owned());
        self.broker.config.entity_changed(&entity, overrides);
        let config = self.broker.config.topic(topic);
        self.broker.replicas.topic_config_changed(topic, &config);
        config
    }

    /// Makes a topic that this broker leads, with `partitions` partitions of one replica.
    pub(crate) fn create_topic(&self, topic: &str, partitions: i32, id: Option<TopicId>) {
        for partition in 0..partitions {
            let outcome = self.lead(topic, partition, id, 0, &[BROKER.0], &[BROKER.0]);
            assert!(outcome.partitions[0].1.is_ok(), "{outcome:?}");
        }
    }

    /// Makes this broker the leader of a partition, and lets the metadata say so.
    pub(crate) fn lead(
        &self,
        topic: &str,
        partition: i32,
        topic_id: Option<TopicId>,
        leader_epoch: i32,
        replicas: &[i32],
        isr: &[i32],
    ) -> ControlOutcome {
        self.assign(
            topic,
            partition,
            topic_id,
            BROKER.0,
            leader_epoch,
            replicas,
            isr,
        )
    }

    /// Gives a partition a leader, here or elsewhere.
    #[expect(clippy::too_many_arguments, reason = "the fields of one small request")]
    pub(crate) fn assign(
        &self,
        topic: &str,
        partition: i32,
        topic_id: Option<TopicId>,
        leader: i32,
        leader_epoch: i32,
        replicas: &[i32],
        isr: &[i32],
    ) -> ControlOutcome {
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let leadership = Leadership {
            controller_epoch: 1,
            leader,
            leader_epoch,
            isr: ids(isr),
            partition_epoch: leader_epoch,
            is_recovering: false,
        };
        let topic_partition = TopicPartition::new(topic, partition);
        let update = UpdateMetadata {
            header: header(),
            partitions: Arc::new([PartitionMetadata {
                topic_partition: topic_partition.clone(),
                topic_id,
                leadership: leadership.clone(),
                replicas: ids(replicas),
                offline_replicas: Vec::new(),
            }]),
            live_brokers: Arc::new([live_broker(20, 29092), live_broker(21, 29093)]),
        };
        self.broker.replicas.apply_update_metadata(&update).unwrap();
        let request = LeaderAndIsr {
            header: header(),
            partitions: vec![LeaderAndIsrPartition {
                topic_partition,
                topic_id,
                leadership,
                replicas: ids(replicas),
                adding_replicas: Vec::new(),
                removing_replicas: Vec::new(),
                is_new: true,
            }],
            live_leaders: Vec::new(),
        };
        self.broker.replicas.apply_leader_and_isr(&request)
    }

    /// Runs a request as it came over the wire, without its size: what is sent back, without its
    /// size; `None` if the connection is closed. The request must not have to wait.
    pub(crate) fn exchange(&self, frame: Bytes) -> Option<Vec<u8>> {
        let exchanged = self.exchange_later(frame).now_or_never();
        exchanged.expect("the request waits")
    }

    /// The same for a request that waits.
    pub(crate) async fn exchange_later(&self, frame: Bytes) -> Option<Vec<u8>> {
        match dispatch(frame, &self.broker, &self.connection).await {
            Outcome::Respond(response) => {
                let mut bytes = response.head()[4..].to_vec();
                bytes.extend(inlined(response.sections()));
                Some(bytes)
            }
            Outcome::Silent(_) => Some(Vec::new()),
            Outcome::Close(_) => None,
        }
    }
}

/// A controller whose task never runs: tests say themselves who leads.
fn idle_controller(
    config: &Arc<LiveConfig>,
    zookeeper: &Arc<ZooKeeper>,
    replicas: &Arc<ReplicaManager>,
) -> Arc<ControllerHandle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let entered = runtime.enter();
    let controller = ControllerHandle::start(ControllerOptions {
        zookeeper: zookeeper.clone(),
        config: config.clone(),
        registration: BrokerRegistration {
            id: BROKER,
            endpoints: Vec::new(),
            rack: None,
            jmx_port: -1,
            timestamp_ms: 0,
            features: BTreeMap::new(),
            fast_failover: false,
        },
        broker_epoch: replicas.broker_epoch(),
        target: Arc::new(replicas.clone()),
        remote: None,
    });
    drop(entered);
    // It cannot be dropped where a test's own runtime runs.
    std::mem::forget(runtime);
    controller
}

/// The bytes of a response body, read from files where they are in files.
pub(crate) fn inlined(sections: &[Section]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for section in sections {
        match section {
            Section::Bytes(part) => bytes.extend_from_slice(part),
            Section::File(slice) => bytes.extend_from_slice(&slice.read_all().unwrap()),
        }
    }
    bytes
}

pub(crate) fn header() -> ControlHeader {
    ControlHeader {
        controller_id: BROKER,
        controller_epoch: 1,
        broker_epoch: -1,
    }
}

pub(crate) fn live_broker(id: i32, port: u16) -> LiveBroker {
    LiveBroker {
        id: BrokerId(id),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: "127.0.0.1".to_owned(),
            port,
        }],
        rack: None,
    }
}

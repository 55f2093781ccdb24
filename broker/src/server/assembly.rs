//! A broker put together from its parts, whatever it stands on: real files and sockets, or simulated ones.
//!
//! [`Assembly::prepare`] does what comes before others see the broker, [`Assembly::join`] what makes it one of
//! the cluster. Sockets are bound in between and served afterwards, by the caller.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;
use barnabas_core::ids::BrokerId;
use barnabas_core::znodes::ConfigEntity;
use tokio::task::JoinHandle;

use super::StartError;
use super::identity;
use super::replica_keeper::ReplicaKeeper;
use crate::api::Broker;
use crate::config::LiveConfig;
use crate::config::passwords::{self, PasswordEncoder};
use crate::controller::{
    ControllerHandle, ControllerLink, ControllerLinkOptions, ControllerOptions, NetworkTargets,
};
use crate::coordinator::markers::MarkerWriter;
use crate::coordinator::transactions::CompleterOptions;
use crate::coordinator::{
    Coordinators, GroupCoordinator, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, TransactionCoordinator,
    TransactionVerifier, TransactionVerifierOptions,
};
use crate::files::Files;
use crate::liveness::{self, LivenessOptions};
use crate::log::{LogDirsOptions, LogManager, MetaProperties};
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::peer::PeerNetwork;
use crate::producer_ids::ProducerIdManager;
use crate::quota::ClientQuotas;
use crate::replica::fetch_session_cache::FetchSessions;
use crate::replica::{ReplicaManager, ReplicaManagerOptions, ZooKeeperTopicConfigs};
use crate::topics::TopicAdmin;
use crate::zookeeper::{ConfigListener, FormerOwner, SessionState, ZooKeeper};
use crate::{clock, host};

/// How long one attempt to hand over leaders may take.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);

/// How long after the registration requests of clients wait for the first word of the controller. It takes some
/// milliseconds where there is one.
const FIRST_UPDATE_PATIENCE: Duration = Duration::from_secs(2);

/// What a broker stands on.
#[derive(Clone)]
pub struct Ground {
    pub zookeeper: Arc<ZooKeeper>,
    pub files: Arc<dyn Files>,
    /// The way to other brokers.
    pub network: Arc<dyn PeerNetwork>,
}

/// A broker with its settings and logs, of which nobody knows yet.
pub struct Assembly {
    ground: Ground,
    identity: Identity,
    live: Arc<LiveConfig>,
    quotas: Arc<ClientQuotas>,
    config_listener: ConfigListener,
    logs: Arc<LogManager>,
}

/// A broker that is part of the cluster. It answers whoever calls `api::dispatch` with it.
pub struct Assembled {
    pub broker: Arc<Broker>,
    /// End with the broker, before its logs are closed.
    tasks: Vec<JoinHandle<()>>,
    keeper: ReplicaKeeper,
}

/// Who this broker is, and what its log directories said before.
struct Identity {
    cluster_id: String,
    broker_id: BrokerId,
    former_owner: FormerOwner,
    meta_properties: MetaProperties,
}

impl Assembly {
    /// Finds out who this broker is and how it is set, and opens its logs.
    pub async fn prepare(config: BrokerConfig, ground: Ground) -> Result<Self, StartError> {
        let zookeeper = &ground.zookeeper;
        let identity = identify(&config, &ground).await?;
        let live = Arc::new(LiveConfig::new(config, identity.broker_id)?);
        let quotas = Arc::new(ClientQuotas::new(&live.broker()));
        let mut config_listener = ConfigListener::new(zookeeper.clone(), {
            let (live, quotas) = (live.clone(), quotas.clone());
            Box::new(move |entity, texts| {
                quotas.entity_changed(&entity, &texts);
                live.entity_changed(&entity, texts);
            })
        });
        config_listener.load().await?;
        take_over_passwords(&live, zookeeper, identity.broker_id).await;
        let logs = open_logs(&live, ground.files.clone()).await?;
        logs.start();
        logs.configure_cleaner(&live.broker());
        Ok(Self {
            ground,
            identity,
            live,
            quotas,
            config_listener,
            logs,
        })
    }

    /// The settings, dynamic ones included.
    pub fn config(&self) -> &Arc<LiveConfig> {
        &self.live
    }

    /// Registers the broker, whose sockets have the given ports, and starts its controller.
    pub async fn join(self, addresses: &[(String, u16)]) -> Result<Assembled, StartError> {
        let Self {
            ground,
            identity,
            live,
            quotas,
            config_listener,
            logs,
        } = self;
        let config = live.broker();
        let zookeeper = ground.zookeeper;
        let broker_id = identity.broker_id;
        let (network, suspected) = liveness::reporting(ground.network.clone());
        let metrics = Arc::new(Metrics::default());
        let metadata = MetadataCache::new();
        let isr = Arc::new(OnceLock::new());
        let replicas = ReplicaManager::new(ReplicaManagerOptions {
            broker_id,
            replica_lag_max: Duration::from_millis(config.replica_lag_time_max_ms.max(0) as u64),
            logs: logs.clone(),
            metadata: metadata.clone(),
            topic_configs: Arc::new(ZooKeeperTopicConfigs {
                config: live.clone(),
                zookeeper: zookeeper.clone(),
            }),
            isr: isr.clone(),
            network: network.clone(),
            config: live.clone(),
            metrics: metrics.clone(),
        });
        let groups = GroupCoordinator::new(live.clone());
        let transactions = TransactionCoordinator::new(CompleterOptions {
            broker_id,
            config: live.clone(),
            metadata: metadata.clone(),
            zookeeper: zookeeper.clone(),
            network: network.clone(),
            local: MarkerWriter::new(replicas.clone(), groups.clone(), live.clone()),
        });
        replicas.set_role_listener(Arc::new(Coordinators {
            groups: groups.clone(),
            transactions: Arc::downgrade(&transactions),
        }));
        let session_slots = config.max_incremental_fetch_session_cache_slots;
        let registration = identity::registration(&config, broker_id, addresses);
        zookeeper.check_endpoints(&registration).await?;
        let patience = Duration::from_millis(config.zookeeper_session_timeout_ms.max(0) as u64);
        let broker_epoch = zookeeper
            .register_broker(&registration, identity.former_owner, patience)
            .await?;
        replicas
            .broker_epoch()
            .store(broker_epoch, Ordering::SeqCst);
        let unwritten = identity.meta_properties.write(
            &*ground.files,
            broker_id,
            &identity.cluster_id,
            clock::wall_clock_ms(),
        );
        for error in unwritten {
            tracing::error!(%error, "a log directory does not know its broker");
        }

        let peers = network;
        replicas.start();
        metadata.expect_update(FIRST_UPDATE_PATIENCE, !logs.all_logs().is_empty());
        let partitions = partitions_of(&zookeeper, OFFSETS_TOPIC).await?;
        let group_expiry = groups.start(partitions.unwrap_or(config.offsets_topic_num_partitions));
        let partitions = partitions_of(&zookeeper, TRANSACTIONS_TOPIC).await?;
        let transaction_timers =
            transactions.start(partitions.unwrap_or(config.transaction_state_log_num_partitions));
        let controller = ControllerHandle::start(ControllerOptions {
            zookeeper: zookeeper.clone(),
            config: live.clone(),
            registration,
            broker_epoch: replicas.broker_epoch(),
            target: Arc::new(replicas.clone()),
            remote: Some(NetworkTargets::new(peers.clone(), live.clone(), broker_id)),
        });
        let controller_link = ControllerLink::new(ControllerLinkOptions {
            network: peers.clone(),
            controller: controller.clone(),
            metadata: metadata.clone(),
            config: live.clone(),
        });
        let _ = isr.set(controller_link.clone());
        let verifier = TransactionVerifier::new(TransactionVerifierOptions {
            broker_id,
            network: peers.clone(),
            metadata: metadata.clone(),
            config: live.clone(),
            transactions: transactions.clone(),
        });
        let broker = Arc::new(Broker {
            broker_id,
            cluster_id: identity.cluster_id,
            config: live.clone(),
            metrics,
            zookeeper: zookeeper.clone(),
            logs: logs.clone(),
            replicas: replicas.clone(),
            fetch_sessions: Arc::new(FetchSessions::new(session_slots.max(0) as usize)),
            topics: TopicAdmin::new(zookeeper.clone(), live.clone(), metadata.clone()),
            producer_ids: ProducerIdManager::new(controller_link.clone()),
            controller,
            controller_link,
            peers,
            metadata,
            groups,
            transactions,
            verifier,
            quotas: quotas.clone(),
        });
        let mut tasks = vec![
            host::spawn(quotas.forget_idle()),
            host::spawn(config_listener.run()),
            host::spawn(count_session_events(broker.clone())),
            group_expiry,
        ];
        tasks.extend(transaction_timers);
        let watching = liveness::start(LivenessOptions {
            broker_id,
            zookeeper: zookeeper.clone(),
            config: live.clone(),
            controller: broker.controller.status(),
            network: ground.network,
            suspected,
        });
        tasks.extend(watching);
        let keeper = ReplicaKeeper::start(&replicas, &logs, &live, &zookeeper, broker_id);
        Ok(Assembled {
            broker,
            tasks,
            keeper,
        })
    }
}

impl Assembled {
    /// Ends what runs beside requests, closes the logs and leaves the cluster. No request may come any more.
    pub async fn leave(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.keeper.stop();
        self.broker.replicas.stop();
        let broker = self.broker.clone();
        let closed = host::blocking(move || {
            broker.replicas.checkpoint_high_watermarks();
            broker.logs.shutdown();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the logs were not closed");
        }
        self.broker.controller.resign().await;
        self.broker.zookeeper.close().await;
    }

    /// Asks the controller for other leaders, as often as `controlled.shutdown.*` say. Whoever leads something
    /// after that stops nevertheless. From then on others may take this broker for dead, which it soon is.
    pub async fn hand_over(&self) {
        self.hand_over_leaders().await;
        self.broker.controller.let_go_of_registration().await;
        // Members of groups wait for minutes.
        self.broker.groups.stop();
        self.broker.transactions.stop();
    }

    async fn hand_over_leaders(&self) {
        let config = self.broker.config.broker();
        if !config.controlled_shutdown_enable {
            return;
        }
        self.broker.replicas.begin_to_leave();
        let backoff = config.controlled_shutdown_retry_backoff_ms.max(0) as u64;
        let backoff = Duration::from_millis(backoff);
        for attempt in 0..config.controlled_shutdown_max_retries.max(1) {
            if attempt > 0 {
                tokio::time::sleep(backoff).await;
            }
            let is_connected =
                *self.broker.zookeeper.session_state().borrow() == SessionState::Connected;
            if self.broker.controller.is_active() && !is_connected {
                tracing::warn!("leaders are not handed over: the controller has no ZooKeeper");
                return;
            }
            let asked = self.broker.controller_link.controlled_shutdown();
            match tokio::time::timeout(HAND_OVER_PATIENCE, asked).await {
                Ok(Ok(kept)) if kept.is_empty() => return,
                Ok(Ok(kept)) => tracing::info!(partitions = kept.len(), "still leading"),
                Ok(Err(error)) => tracing::warn!(%error, "leaders were not handed over"),
                Err(_) => tracing::warn!("the controller did not hand over leaders in time"),
            }
        }
    }
}

/// How many partitions an internal topic has, if it is there.
async fn partitions_of(zookeeper: &ZooKeeper, topic: &str) -> Result<Option<i32>, StartError> {
    let assignment = zookeeper.topic_assignment(topic).await;
    let assignment = assignment.map_err(StartError::InternalTopic)?;
    Ok(assignment.map(|assignment| assignment.partitions.len() as i32))
}

/// Cluster id, then broker id: the configured one, that of the log directories, or a new one.
async fn identify(config: &BrokerConfig, ground: &Ground) -> Result<Identity, StartError> {
    let cluster_id = ground.zookeeper.cluster_id().await?;
    let log_dirs: Vec<PathBuf> = config.log_dirs.iter().map(PathBuf::from).collect();
    let meta_properties = MetaProperties::read(&*ground.files, &log_dirs)?;
    meta_properties.check_cluster(&cluster_id)?;
    let configured = (config.broker_id >= 0).then_some(BrokerId(config.broker_id));
    let known = meta_properties.broker_id(configured)?;
    let broker_id = match known {
        Some(known) => known,
        None => ground
            .zookeeper
            .generate_broker_id(config.reserved_broker_max_id)
            .await
            .map_err(StartError::BrokerId)?,
    };
    // The locks of the directories, which are taken before the registration, prove that their last owner is
    // gone.
    let was_here = meta_properties.broker_id(None)? == Some(broker_id);
    Ok(Identity {
        cluster_id,
        broker_id,
        former_owner: if was_here {
            FormerOwner::IsDead
        } else {
            FormerOwner::MayBeAlive
        },
        meta_properties,
    })
}

async fn open_logs(
    live: &Arc<LiveConfig>,
    files: Arc<dyn Files>,
) -> Result<Arc<LogManager>, StartError> {
    let options = LogDirsOptions::from_config(&live.broker());
    let live = live.clone();
    let opened =
        host::blocking(move || LogManager::open(options, files, move |topic| live.topic(topic)));
    let opened = opened
        .await
        .expect("loading logs panics only if the process is broken");
    Ok(opened?)
}

/// Counts what happens to the ZooKeeper session.
async fn count_session_events(broker: Arc<Broker>) {
    let mut state = broker.zookeeper.session_state();
    loop {
        let metrics = &broker.metrics;
        match *state.borrow_and_update() {
            SessionState::Connected => metrics.zookeeper_sync_connects.increment(),
            SessionState::Disconnected => metrics.zookeeper_disconnects.increment(),
            SessionState::Expired => metrics.zookeeper_expires.increment(),
            SessionState::AuthFailed => metrics.zookeeper_auth_failures.increment(),
            SessionState::Closed => {}
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Encrypts the passwords among this broker's dynamic settings anew if `password.encoder.old.secret` says that the
/// secret changed. What goes wrong is only logged: the settings remain readable with the former secret.
async fn take_over_passwords(live: &LiveConfig, zookeeper: &ZooKeeper, broker_id: BrokerId) {
    let config = live.broker();
    let encoders = PasswordEncoder::former(&config).zip(PasswordEncoder::from_config(&config));
    let Some((former, current)) = encoders else {
        return;
    };
    let texts = live.layers().broker;
    let changed = match passwords::reencoded(&texts, &former, &current, &mut host::random()) {
        Ok(Some(changed)) => changed,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(%error, "passwords are not encrypted with the new secret");
            return;
        }
    };
    let entity = ConfigEntity::Broker(broker_id);
    match zookeeper.replace_own_config(&entity, changed.clone()).await {
        Ok(()) => {
            tracing::info!("passwords of dynamic settings are encrypted with the new secret");
            live.entity_changed(&entity, changed);
        }
        Err(error) => tracing::error!(%error, "passwords are not encrypted with the new secret"),
    }
}

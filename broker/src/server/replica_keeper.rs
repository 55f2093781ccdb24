//! What replicas need beside requests: checkpoints of their high watermarks, new settings of their
//! topics, and word of log directories that failed.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::BrokerId;
use tokio::task::JoinHandle;

use crate::config::LiveConfig;
use crate::host;
use crate::log::LogManager;
use crate::replica::ReplicaManager;
use crate::zookeeper::ZooKeeper;

/// The tasks that keep replicas in order while the broker runs.
pub(super) struct ReplicaKeeper {
    tasks: Vec<JoinHandle<()>>,
}

impl ReplicaKeeper {
    pub(super) fn start(
        replicas: &Arc<ReplicaManager>,
        logs: &Arc<LogManager>,
        config: &LiveConfig,
        zookeeper: &Arc<ZooKeeper>,
        broker_id: BrokerId,
    ) -> Self {
        config.on_topic_change({
            let replicas = replicas.clone();
            move |topic, config| replicas.topic_config_changed(topic, config)
        });
        config.on_broker_change({
            let (logs, replicas) = (logs.clone(), replicas.clone());
            move |config| {
                logs.refresh_topic_configs();
                logs.limit_moves(config);
                logs.configure_cleaner(config);
                replicas.broker_config_changed(config);
            }
        });
        let interval = config
            .broker()
            .replica_high_watermark_checkpoint_interval_ms;
        Self {
            tasks: vec![
                host::spawn(checkpoint(
                    replicas.clone(),
                    Duration::from_millis(interval.max(1) as u64),
                )),
                host::spawn(notice_failures(
                    replicas.clone(),
                    logs.clone(),
                    zookeeper.clone(),
                    broker_id,
                )),
            ],
        }
    }

    pub(super) fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn checkpoint(replicas: Arc<ReplicaManager>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        replicas.checkpoint_high_watermarks();
    }
}

/// Takes replicas of failed directories offline and tells the controller, which then elects other
/// leaders. Without any directory left the broker is of no use and ends, as Kafka does.
async fn notice_failures(
    replicas: Arc<ReplicaManager>,
    logs: Arc<LogManager>,
    zookeeper: Arc<ZooKeeper>,
    broker_id: BrokerId,
) {
    let mut failures = logs.subscribe_failures();
    let mut reported = 0;
    loop {
        let offline = failures.borrow_and_update().len();
        if let Some(error) = logs.all_offline() {
            tracing::error!(%error, "no log directory is left: repair it and start the broker again");
            host::exit(1).await;
        }
        let lost = replicas.directories_failed();
        if offline > reported {
            reported = offline;
            tracing::error!(
                replicas = lost.len(),
                "replicas went offline with their directory"
            );
            if let Err(error) = zookeeper.report_log_dir_failure(broker_id).await {
                tracing::warn!(%error, "the controller was not told of a failed log directory");
            }
        }
        if failures.changed().await.is_err() {
            return;
        }
    }
}

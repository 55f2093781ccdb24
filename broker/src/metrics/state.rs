//! Metrics that are read off the parts of the broker when somebody asks.

use super::Exposition;
use crate::api::{Api, Broker, error_code};
use crate::clock;
use crate::log::PartitionLog;
use crate::replica::partition::{Health, Partition};
use crate::zookeeper::SessionState;

/// How much longer than `transaction.max.timeout.ms` a transaction may stay silent before it counts as late.
/// Kafka: `ProducerStateManager.LATE_TRANSACTION_BUFFER_MS`.
const LATE_TRANSACTION_BUFFER_MS: i64 = 5 * 60 * 1000;

/// Writes all metrics of a broker.
pub fn write_all(broker: &Broker, out: &mut Exposition) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.gauge("barnabas_build_info", &version, 1);
    // 3 is RUNNING: what is not running does not answer here.
    out.gauge("kafka_server_kafkaserver_brokerstate", &[], 3);
    super::process::write(out);
    write_logs(broker, out);
    write_replicas(broker, out);
    write_controller(broker, out);
    write_groups(broker, out);
    write_transactions(broker, out);
    write_session(broker, out);
    let api_name = |key| Api::find(key).map(|api| api.name);
    broker.metrics.write(out, api_name, error_code::name_of);
    broker.quotas.write_metrics(out);
}

fn write_logs(broker: &Broker, out: &mut Exposition) {
    let directories = broker.logs.directories();
    let offline = directories.iter().filter(|one| one.error.is_some()).count();
    out.gauge(
        "kafka_log_logmanager_offlinelogdirectorycount",
        &[],
        offline,
    );
    for directory in &directories {
        let path = directory.path.to_string_lossy();
        let labels = [("logDirectory", path.as_ref())];
        let is_offline = u8::from(directory.error.is_some());
        out.gauge(
            "kafka_log_logmanager_logdirectoryoffline",
            &labels,
            is_offline,
        );
    }
    let logs = broker.logs.all_logs();
    let logs: Vec<_> = logs
        .iter()
        .map(|log| {
            let topic_partition = log.topic_partition();
            (
                topic_partition.topic.clone(),
                topic_partition.partition.to_string(),
                log,
            )
        })
        .collect();
    let mut each = |name: &str, value: &dyn Fn(&crate::log::PartitionLog) -> i64| {
        for (topic, partition, log) in &logs {
            let labels = [("topic", topic.as_ref()), ("partition", partition.as_str())];
            out.gauge(name, &labels, value(log));
        }
    };
    each("kafka_log_log_size", &|log| log.size_in_bytes() as i64);
    each("kafka_log_log_logstartoffset", &|log| {
        log.log_start_offset()
    });
    each("kafka_log_log_logendoffset", &|log| log.log_end_offset());
    each("kafka_log_log_numlogsegments", &|log| {
        log.segment_count() as i64
    });
    broker.logs.write_flush_times(out);
    broker.logs.write_cleaner(out);
}

fn write_transactions(broker: &Broker, out: &mut Exposition) {
    use std::sync::atomic::Ordering::Relaxed;

    let counted = broker.transactions.metrics();
    let prefix = "kafka_coordinator_transaction_transactionmarkerchannelmanager";
    let waiting = counted.unknown_destinations.load(Relaxed);
    let name = format!("{prefix}_unknowndestinationqueuesize");
    out.gauge(&name, &[], waiting);
    let retries = counted.append_retries.load(Relaxed);
    let name = format!("{prefix}_logappendretryqueuesize");
    out.gauge(&name, &[], retries);
    let prefix = "kafka_server_transaction_coordinator_metrics_partition_load_time";
    out.gauge(&format!("{prefix}_max"), &[], counted.load_ms_max());
    out.gauge(&format!("{prefix}_avg"), &[], counted.load_ms_avg());
}

/// `kafka.coordinator.group:type=GroupMetadataManager` and `kafka.server:type=group-coordinator-metrics`.
fn write_groups(broker: &Broker, out: &mut Exposition) {
    let counts = broker.groups.counts();
    let gauges = [
        ("numgroups", counts.groups),
        ("numoffsets", counts.offsets),
        ("numgroupsempty", counts.empty),
        ("numgroupspreparingrebalance", counts.preparing_rebalance),
        ("numgroupscompletingrebalance", counts.completing_rebalance),
        ("numgroupsstable", counts.stable),
        ("numgroupsdead", counts.dead),
    ];
    for (name, value) in gauges {
        let family = format!("kafka_coordinator_group_groupmetadatamanager_{name}");
        out.gauge(&family, &[], value);
    }
    let metrics = broker.groups.metrics();
    let counters = [
        ("offset_commit_count", &metrics.offset_commits),
        ("offset_expiration_count", &metrics.offset_expirations),
        ("offset_deletion_count", &metrics.offset_deletions),
        (
            "group_completed_rebalance_count",
            &metrics.completed_rebalances,
        ),
    ];
    let prefix = "kafka_server_group_coordinator_metrics";
    for (name, value) in counters {
        let value = value.load(std::sync::atomic::Ordering::Relaxed);
        out.counter(&format!("{prefix}_{name}"), &[], value);
    }
    let family = format!("{prefix}_partition_load_time_max");
    out.gauge(&family, &[], metrics.load_ms_max());
}

fn write_replicas(broker: &Broker, out: &mut Exposition) {
    let counts = broker.replicas.counts();
    let gauges = [
        ("partitioncount", counts.partitions),
        ("leadercount", counts.leaders),
        ("offlinereplicacount", counts.offline),
        ("underreplicatedpartitions", counts.under_replicated),
        ("underminisrpartitioncount", counts.under_min_isr),
        ("atminisrpartitioncount", counts.at_min_isr),
        ("reassigningpartitions", counts.reassigning),
    ];
    for (name, value) in gauges {
        out.gauge(&format!("kafka_server_replicamanager_{name}"), &[], value);
    }
    let late = late_transactions(broker);
    let name = "kafka_server_replicamanager_partitionswithlatetransactionscount";
    out.gauge(name, &[], late);
    write_partitions(broker, out);
    write_fetchers(broker, out);
    let sessions = broker.fetch_sessions.counts();
    let prefix = "kafka_server_fetchsessioncache";
    let gauges = [
        ("numincrementalfetchsessions", sessions.sessions),
        ("numincrementalfetchpartitionscached", sessions.partitions),
    ];
    for (name, value) in gauges {
        out.gauge(&format!("{prefix}_{name}"), &[], value);
    }
    let name = format!("{prefix}_incrementalfetchsessionevictions_total");
    out.counter(&name, &[], sessions.evictions);
}

/// In how many partitions that this broker leads a transaction hangs (KIP-664).
fn late_transactions(broker: &Broker) -> usize {
    let timeout_max = i64::from(broker.config.broker().transaction_max_timeout_ms);
    let limit_ms = timeout_max + LATE_TRANSACTION_BUFFER_MS;
    let now_ms = clock::now().wall_clock_ms;
    let is_late = |partition: &&std::sync::Arc<Partition>| {
        partition.view().is_leader
            && partition
                .log()
                .is_ok_and(|log| log.has_late_transaction(now_ms, limit_ms))
    };
    broker.replicas.partitions().iter().filter(is_late).count()
}

/// `kafka.cluster:type=Partition`, for the partitions that this broker leads.
fn write_partitions(broker: &Broker, out: &mut Exposition) {
    let partitions = broker.replicas.partitions();
    let led: Vec<_> = partitions
        .iter()
        .map(|partition| (partition, partition.health()))
        .filter(|(_, health)| health.is_leader)
        .collect();
    let mut each = |name: &str, value: &dyn Fn(&Partition, &Health) -> i64| {
        for (partition, health) in &led {
            let of = &partition.topic_partition;
            let number = of.partition.to_string();
            let labels = [("topic", of.topic.as_ref()), ("partition", number.as_str())];
            let family = format!("kafka_cluster_partition_{name}");
            out.gauge(&family, &labels, value(partition, health));
        }
    };
    each("underreplicated", &|_, health| {
        i64::from(health.is_under_replicated)
    });
    each("underminisr", &|_, health| {
        i64::from(health.is_under_min_isr)
    });
    each("atminisr", &|_, health| i64::from(health.is_at_min_isr));
    each("insyncreplicascount", &|_, health| health.in_sync as i64);
    each("replicascount", &|_, health| health.replicas as i64);
    each("laststableoffsetlag", &|partition, _| {
        let stable = |log: &PartitionLog| partition.last_stable_offset(log);
        let lag = partition
            .log()
            .map(|log| partition.high_watermark() - stable(&log));
        lag.unwrap_or(0)
    });
}

/// How the fetchers of followers get on.
fn write_fetchers(broker: &Broker, out: &mut Exposition) {
    let fetchers = broker.replicas.fetchers();
    let counts = fetchers.counts();
    let labels = [("clientId", "Replica")];
    let prefix = "kafka_server_replicafetchermanager";
    out.gauge(&format!("{prefix}_maxlag"), &labels, counts.max_lag);
    let failed = counts.failed_partitions;
    out.gauge(&format!("{prefix}_failedpartitionscount"), &labels, failed);
    for (client, of, lag) in fetchers.lags() {
        let partition = of.partition.to_string();
        let labels = [
            ("clientId", client.as_str()),
            ("topic", of.topic.as_ref()),
            ("partition", partition.as_str()),
        ];
        out.gauge("kafka_server_fetcherlagmetrics_consumerlag", &labels, lag);
    }
}

fn write_controller(broker: &Broker, out: &mut Exposition) {
    let status = *broker.controller.status().borrow();
    let totals = status.totals;
    let gauges = [
        ("activecontrollercount", usize::from(status.is_active)),
        ("controllerstate", usize::from(status.state)),
        ("activebrokercount", totals.live_brokers),
        ("globaltopiccount", totals.topics),
        ("globalpartitioncount", totals.partitions),
        ("offlinepartitionscount", totals.offline_partitions),
        (
            "preferredreplicaimbalancecount",
            totals.preferred_replica_imbalance,
        ),
        ("topicstodeletecount", totals.topics_to_delete),
        (
            "topicsineligibletodeletecount",
            totals.topics_ineligible_for_deletion,
        ),
        ("replicastodeletecount", totals.replicas_to_delete),
        (
            "replicasineligibletodeletecount",
            totals.replicas_ineligible_for_deletion,
        ),
    ];
    for (name, value) in gauges {
        out.gauge(
            &format!("kafka_controller_kafkacontroller_{name}"),
            &[],
            value,
        );
    }
    let queued = status.queued_events;
    out.gauge(
        "kafka_controller_controllereventmanager_eventqueuesize",
        &[],
        queued,
    );
    out.counter(
        "kafka_controller_controllerstats_leaderelections_total",
        &[],
        status.leader_elections,
    );
    out.counter(
        "kafka_controller_controllerstats_uncleanleaderelections_total",
        &[],
        status.unclean_leader_elections,
    );
    broker.controller.metrics().write(out);
}

fn write_session(broker: &Broker, out: &mut Exposition) {
    if let Some(times) = broker.zookeeper.coordination().request_times() {
        let family = "kafka_server_zookeeperclientmetrics_zookeeperrequestlatencyms";
        out.histogram(family, &[], &times);
    }
    let now = *broker.zookeeper.session_state().borrow();
    let states = [
        ("CONNECTED", SessionState::Connected),
        ("DISCONNECTED", SessionState::Disconnected),
        ("EXPIRED", SessionState::Expired),
        ("AUTH_FAILED", SessionState::AuthFailed),
        ("CLOSED", SessionState::Closed),
    ];
    for (name, state) in states {
        let labels = [("state", name)];
        let metric = "kafka_server_sessionexpirelistener_sessionstate";
        out.gauge(metric, &labels, u8::from(now == state));
    }
}

//! Tiered storage, which this broker does not have.

use crate::config::setting::{Check, Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("remote.log.storage.system.enable", Kind::Boolean, Some("false"), "").no_effect(),
    Setting::new("remote.log.storage.manager.impl.prefix", Kind::String, Some("rsm.config."), "").check(Check::NonEmpty).no_effect(),
    Setting::new("remote.log.metadata.manager.impl.prefix", Kind::String, Some("rlmm.config."), "").check(Check::NonEmpty).no_effect(),
    Setting::new("remote.log.storage.manager.class.name", Kind::String, None, "").check(Check::NonEmpty).no_effect(),
    Setting::new("remote.log.storage.manager.class.path", Kind::String, None, "").no_effect(),
    Setting::new("remote.log.metadata.manager.class.name", Kind::String, Some("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"), "").check(Check::NonEmpty).no_effect(),
    Setting::new("remote.log.metadata.manager.class.path", Kind::String, None, "").no_effect(),
    Setting::new("remote.log.metadata.manager.listener.name", Kind::String, None, "").check(Check::NonEmpty).no_effect(),
    Setting::new("remote.log.metadata.custom.metadata.max.bytes", Kind::Int, Some("128"), "").check(Check::AtLeast(0)).no_effect(),
    Setting::new("remote.log.index.file.cache.total.size.bytes", Kind::Long, Some("1073741824"), "").check(Check::AtLeast(1)).cluster_wide().no_effect(),
    Setting::new("remote.log.manager.thread.pool.size", Kind::Int, Some("10"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.manager.copier.thread.pool.size", Kind::Int, Some("-1"), "").check(Check::MinusOneOrPositive).no_effect(),
    Setting::new("remote.log.manager.expiration.thread.pool.size", Kind::Int, Some("-1"), "").check(Check::MinusOneOrPositive).no_effect(),
    Setting::new("remote.log.manager.task.interval.ms", Kind::Long, Some("30000"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.manager.task.retry.backoff.ms", Kind::Long, Some("500"), "").check(Check::AtLeast(1)).no_effect().internal(),
    Setting::new("remote.log.manager.task.retry.backoff.max.ms", Kind::Long, Some("30000"), "").check(Check::AtLeast(1)).no_effect().internal(),
    Setting::new("remote.log.manager.task.retry.jitter", Kind::Double, Some("0.2"), "").check(Check::Fraction(0.0, 0.5)).no_effect().internal(),
    Setting::new("remote.log.reader.threads", Kind::Int, Some("10"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.reader.max.pending.tasks", Kind::Int, Some("100"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("log.local.retention.ms", Kind::Long, Some("-2"), "").check(Check::AtLeast(-2)).cluster_wide().no_effect(),
    Setting::new("log.local.retention.bytes", Kind::Long, Some("-2"), "").check(Check::AtLeast(-2)).cluster_wide().no_effect(),
    Setting::new("remote.log.manager.copy.max.bytes.per.second", Kind::Long, Some("9223372036854775807"), "").check(Check::AtLeast(1)).cluster_wide().no_effect(),
    Setting::new("remote.log.manager.copy.quota.window.num", Kind::Int, Some("11"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.manager.copy.quota.window.size.seconds", Kind::Int, Some("1"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.manager.fetch.max.bytes.per.second", Kind::Long, Some("9223372036854775807"), "").check(Check::AtLeast(1)).cluster_wide().no_effect(),
    Setting::new("remote.log.manager.fetch.quota.window.num", Kind::Int, Some("11"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.log.manager.fetch.quota.window.size.seconds", Kind::Int, Some("1"), "").check(Check::AtLeast(1)).no_effect(),
    Setting::new("remote.fetch.max.wait.ms", Kind::Int, Some("500"), "").check(Check::AtLeast(1)).cluster_wide().no_effect(),
];

//! What a world is like, by its seed or by what a story wants.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::compactions;
use super::network::Node;

/// What a world is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) brokers: Node,
    pub(crate) partitions: i32,
    pub(crate) replicas: i16,
    pub(crate) producers: Node,
    pub(crate) consumers: Node,
    pub(crate) transactional_producers: Node,
    /// Clients that commit offsets, each of a group of its own.
    pub(crate) groups: Node,
    /// Members of one group that share the partitions.
    pub(crate) members: Node,
    /// A client creates a topic and deletes it, again and again.
    pub(crate) deletes_topics: bool,
    /// A client writes to a compacted topic, and cleaners are at work, on internal topics too.
    pub(crate) compacts: bool,
    /// How many log directories a broker has; of several, one fails now and then.
    pub(crate) log_dirs: usize,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    /// Machines lose power; then every append is flushed, or acknowledged records could be lost.
    pub(crate) loses_power: bool,
    pub(crate) session_timeout: Duration,
    pub(crate) settings: Vec<(String, String)>,
}

impl Plan {
    /// The plan that a seed stands for.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let is_cluster = random.random_bool(0.8);
        let loses_power = random.random_bool(0.4);
        let mut settings: Vec<(String, String)> = Vec::new();
        let mut set = |key: &str, value: String| settings.push((key.to_owned(), value));
        set(
            "log.segment.bytes",
            random.random_range(400..8_000).to_string(),
        );
        let lag = random.random_range(3_000..12_000);
        set("replica.lag.time.max.ms", lag.to_string());
        let interval = random.random_range(5..60);
        set(
            "leader.imbalance.check.interval.seconds",
            interval.to_string(),
        );
        if loses_power {
            set("log.flush.interval.messages", "1".to_owned());
        }
        let mut plan = Self {
            seed,
            brokers: if is_cluster {
                random.random_range(3..=4)
            } else {
                1
            },
            partitions: random.random_range(1..=4),
            replicas: if is_cluster { 3 } else { 1 },
            producers: random.random_range(1..=3),
            consumers: random.random_range(0..=1),
            trouble: Duration::from_secs(random.random_range(10..90)),
            loses_power,
            session_timeout: Duration::from_secs(6),
            settings,
            transactional_producers: random.random_range(0..=2),
            groups: random.random_range(0..=2),
            members: random.random_range(0..=3),
            deletes_topics: random.random_bool(0.4),
            compacts: random.random_bool(0.4),
            log_dirs: random.random_range(1..=2),
        };
        if plan.compacts {
            plan.set(&compactions::settings());
        }
        plan
    }

    fn set(&mut self, settings: &[(&str, &str)]) {
        let settings = settings.iter();
        let settings = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.settings.extend(settings);
    }

    /// The same with a compacted topic, and cleaners that are at work.
    pub(crate) fn compacting(mut self) -> Self {
        self.compacts = true;
        self.set(&compactions::settings());
        self
    }

    /// `min.insync.replicas` of all topics.
    pub(super) fn min_insync_replicas(&self) -> usize {
        usize::try_from(self.replicas - 1).unwrap_or(0).max(1)
    }

    /// How many clients there are, with the one that creates the topic.
    pub(crate) fn clients(&self) -> Node {
        let groups = self.groups + self.members;
        let producers = self.producers + self.transactional_producers;
        1 + producers
            + self.consumers
            + groups
            + Node::from(self.deletes_topics)
            + Node::from(self.compacts)
    }

    /// Three brokers to which nothing happens but what a story says.
    pub(crate) fn quiet() -> Self {
        Self {
            brokers: 3,
            partitions: 3,
            replicas: 3,
            producers: 2,
            consumers: 1,
            transactional_producers: 1,
            groups: 1,
            members: 2,
            deletes_topics: false,
            compacts: false,
            log_dirs: 1,
            loses_power: false,
            settings: Vec::new(),
            ..Self::of_seed(1)
        }
    }
}

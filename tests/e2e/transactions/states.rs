//! Every state of a transaction, and who may die in it: the coordinator, a leader of its data, or its client.

use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::wait::until;

use super::{
    LONELY, LONELY_FROM, PATIENCE, PRODUCER_FENCED, Producer, TOPIC, data_topic, revive, topic,
};

const INTERNAL: &str = "__transaction_state";
const PARTITIONS: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl State {
    const ALL: [State; 6] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
    ];

    /// How the transaction was ended to get there.
    fn is_committed(self) -> Option<bool> {
        match self {
            State::Empty | State::Ongoing => None,
            State::PrepareCommit | State::CompleteCommit => Some(true),
            State::PrepareAbort | State::CompleteAbort => Some(false),
        }
    }

    /// Markers are missing: the transaction stays there as long as a partition has no leader.
    fn is_prepared(self) -> bool {
        matches!(self, State::PrepareCommit | State::PrepareAbort)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Coordinator,
    Leader,
    Client,
}

const VICTIMS: [Victim; 3] = [Victim::Coordinator, Victim::Leader, Victim::Client];

/// What an everyday run has the time for.
const SOME: [(State, Victim); 5] = [
    (State::Ongoing, Victim::Coordinator),
    (State::PrepareCommit, Victim::Coordinator),
    (State::PrepareCommit, Victim::Leader),
    (State::PrepareAbort, Victim::Client),
    (State::Ongoing, Victim::Client),
];

fn all_in_sync(cluster: &Cluster) {
    let mut view = cluster.view();
    view.wait_for_isr(INTERNAL, &[1, 2, 3], PATIENCE).unwrap();
    let in_sync = view.wait_for(TOPIC, PATIENCE, |partitions| {
        partitions
            .values()
            .all(|partition| partition.isr.len() == 3)
    });
    in_sync.unwrap();
}

/// The one partition that is on that broker alone.
fn partition_on(broker: i32) -> i32 {
    LONELY_FROM + broker - 1
}

struct Case {
    state: State,
    victim: Victim,
    producer: Producer,
    coordinator: i32,
    /// Leads one of the partitions alone, so that its death holds markers back.
    holder: i32,
    /// A replicated partition, if possible led by the third broker.
    partition: i32,
}

impl Case {
    fn begin(cluster: &Cluster, state: State, victim: Victim) -> Self {
        let id = format!("{state:?}-{victim:?}");
        let producer = Producer::init(&cluster.bootstrap(), &id, 60_000);
        let (coordinator, _) = producer.coordinator().unwrap();
        let holder = coordinator % 3 + 1;
        let leads = |partition| cluster.leader(TOPIC, partition).unwrap();
        let mut partitions = 0..PARTITIONS;
        let third = partitions.find(|one| ![coordinator, holder].contains(&leads(*one)));
        Self {
            state,
            victim,
            producer,
            coordinator,
            holder,
            partition: third.unwrap_or(0),
        }
    }

    /// One record each to a replicated partition and to that of the holder, as the `number`th of the producer's epoch.
    fn write(&mut self, number: i32, what: &str) -> Vec<String> {
        let mut values = Vec::new();
        for partition in [self.partition, partition_on(self.holder)] {
            let value = format!("{} {what} {partition}", self.producer.id);
            self.producer.sequence = number;
            self.producer.send_to(partition, &value);
            values.push(value);
        }
        values
    }

    /// Brings the transaction into its state, and gives back what was written on the way.
    fn reach(&mut self, cluster: &mut Cluster) -> Vec<String> {
        if self.state == State::Empty {
            self.producer.wait_for_state("Empty");
            return Vec::new();
        }
        let values = self.write(0, "first");
        if self.state.is_prepared() {
            cluster.kill(self.holder);
        }
        if let Some(is_committed) = self.state.is_committed() {
            assert_eq!(self.producer.end(is_committed), 0);
        }
        self.producer.wait_for_state(&format!("{:?}", self.state));
        values
    }

    /// The victim dies and, if it is a broker, returns. Gives back what is left of a client that died.
    fn strike(&mut self, cluster: &mut Cluster) -> Option<Producer> {
        let dead = match self.victim {
            Victim::Coordinator => self.coordinator,
            Victim::Leader => cluster.leader(TOPIC, self.partition).unwrap(),
            Victim::Client => {
                if self.state.is_prepared() {
                    // Else its successor would wait for the markers.
                    revive(cluster, self.holder);
                }
                let brokers = cluster.bootstrap();
                let successor = Producer::init(&brokers, &self.producer.id, 60_000);
                return Some(std::mem::replace(&mut self.producer, successor));
            }
        };
        cluster.kill(dead);
        revive(cluster, dead);
        if self.state.is_prepared() {
            self.producer.wait_for_state(&format!("{:?}", self.state));
            revive(cluster, self.holder);
        }
        None
    }

    /// Goes on, and gives back what readers of committed records have to see of it all.
    fn finish(&mut self, zombie: Option<Producer>, written: Vec<String>) -> Vec<String> {
        let mut seen = Vec::new();
        let is_committed = match self.state {
            State::Ongoing if zombie.is_none() => {
                assert_eq!(self.producer.end(true), 0);
                true
            }
            State::PrepareCommit | State::CompleteCommit => true,
            // What was open, its successor has aborted.
            State::Ongoing | State::Empty | State::PrepareAbort | State::CompleteAbort => false,
        };
        if is_committed {
            seen.extend(written);
        }
        if zombie.is_none() && self.state != State::Empty {
            let complete = ["CompleteAbort", "CompleteCommit"][usize::from(is_committed)];
            self.producer.wait_for_state(complete);
        }
        if let Some(mut zombie) = zombie {
            assert_eq!(zombie.end(true), PRODUCER_FENCED);
            assert_eq!(zombie.add(self.partition), PRODUCER_FENCED);
            // The successor's epoch begins with the first sequence.
            seen.extend(self.write(0, "second"));
        } else {
            let number = i32::from(self.state != State::Empty);
            seen.extend(self.write(number, "second"));
        }
        assert_eq!(self.producer.end(true), 0);
        self.producer.wait_for_state("CompleteCommit");
        seen
    }
}

fn die_in(cases: &[(State, Victim)]) {
    let options = ClusterOptions::three()
        .with("transaction.state.log.replication.factor", 3)
        .with("transaction.state.log.min.isr", 2)
        // The records say that they are old.
        .with("log.retention.ms", -1)
        .with("auto.leader.rebalance.enable", false);
    let mut cluster = Cluster::start(&options).unwrap();
    data_topic(&cluster, &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
    topic(&cluster, LONELY, &[&[1], &[2], &[3]]);
    let mut wanted: Vec<String> = Vec::new();
    for (state, victim) in cases {
        eprintln!("{victim:?} dies in {state:?}");
        let mut case = Case::begin(&cluster, *state, *victim);
        let written = case.reach(&mut cluster);
        let zombie = case.strike(&mut cluster);
        wanted.extend(case.finish(zombie, written));
        wanted.sort();
        all_in_sync(&cluster);
        let mut last = Vec::new();
        let is_so = until(PATIENCE, || {
            last = case.producer.committed();
            last.extend(case.producer.committed_in(LONELY));
            last.sort();
            (last == wanted).then_some(())
        });
        assert!(is_so.is_some(), "{last:?} instead of {wanted:?}");
    }
}

/// All of them with `BARNABAS_FAULT_ROUNDS`.
#[test]
fn a_transaction_ends_as_decided_whoever_dies_in_whichever_state() {
    if std::env::var_os("BARNABAS_FAULT_ROUNDS").is_none() {
        return die_in(&SOME);
    }
    let all = State::ALL.iter();
    let all = all.flat_map(|state| VICTIMS.iter().map(|victim| (*state, *victim)));
    die_in(&all.collect::<Vec<_>>());
}

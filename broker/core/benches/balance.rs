//! What a plan costs: clusters of a hundred brokers with a hundred thousand and with a million replicas.

use std::hint::black_box;

use barnabas_core::balance::{
    Broker, BrokerRole, Limits, Partition, Pass, RackSpread, Settings, Snapshot, plan,
};
use barnabas_core::ids::{BrokerId, TopicPartition};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const BROKERS: usize = 100;
const PARTITIONS_PER_TOPIC: usize = 200;

fn broker(id: i32) -> Broker {
    Broker {
        id: BrokerId(id),
        rack: None,
        role: BrokerRole::Member,
        disk: None,
    }
}

/// Three replicas of each partition, one behind the other from broker to broker.
fn cluster(partitions: usize) -> Snapshot {
    let partition = |number: usize| {
        let replicas: Vec<_> = (0..3)
            .map(|position| BrokerId(((number * 7 + position) % BROKERS) as i32))
            .collect();
        Partition {
            id: TopicPartition::new(
                format!("t{}", number / PARTITIONS_PER_TOPIC),
                (number % PARTITIONS_PER_TOPIC) as i32,
            ),
            isr: replicas.clone(),
            leader: replicas.first().copied(),
            min_insync_replicas: 1,
            bytes: (number as u64 * 7919) % 1_000_000,
            rates: None,
            on_failed_disks: Vec::new(),
            avoid: Vec::new(),
            rack_spread: RackSpread::Preferred,
            pinned: false,
            replicas,
        }
    };
    Snapshot {
        brokers: (0..BROKERS as i32).map(broker).collect(),
        partitions: (0..partitions).map(partition).collect(),
    }
}

fn plan_moves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for partitions in [33_334, 333_334] {
        let even = cluster(partitions);
        let mut lost = even.clone();
        lost.brokers[7].role = BrokerRole::Lost;
        let mut grown = even.clone();
        grown.brokers.push(broker(BROKERS as i32));
        let mut skewed = even.clone();
        for partition in &mut skewed.partitions {
            partition.bytes = 1000 + u64::from(partition.replicas[0].0 < 20) * 9000;
        }
        let cases: [(&str, &Snapshot, &[Pass]); 4] = [
            ("heal", &lost, &[Pass::Heal]),
            ("spread", &grown, &[Pass::Spread]),
            ("balance", &even, &[Pass::Balance]),
            ("skewed", &skewed, &Pass::ALL),
        ];
        for (name, snapshot, passes) in cases {
            group.bench_function(BenchmarkId::new(name, partitions * 3), |bench| {
                bench.iter(|| {
                    plan(
                        black_box(snapshot),
                        passes,
                        &Settings::default(),
                        Limits::default(),
                    )
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, plan_moves);
criterion_main!(benches);

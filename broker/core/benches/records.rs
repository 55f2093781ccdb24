//! What a leader pays per batch: finding it, checking its CRC, looking at each record.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on fails where it stands"
)]

use std::hint::black_box;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::TopicPartition;
use barnabas_core::records::codec::Codec;
use barnabas_core::records::validate::{ProduceRules, RequestFormat, StoredCompression, prepare};
use barnabas_core::records::{
    BatchBuilder, Compression, TimestampType, batches, records, verify_crc,
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_700_000_000_000;

/// `count` records of `size` bytes each, half of them random letters.
fn batch(compression: Compression, count: usize, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    let mut state = 1_u32;
    for at in 0..count {
        let value: Vec<u8> = (0..size)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 2 == 0 {
                    b'x'
                } else {
                    b'a' + (state >> 28) as u8
                }
            })
            .collect();
        builder.push(NOW + (at / 10) as i64, None, Some(&value), &[]);
    }
    builder.build()
}

fn rules() -> ProduceRules {
    ProduceRules::for_topic(
        &TopicConfig::default(),
        TopicPartition::new("t", 0),
        RequestFormat::OneBatch,
        false,
    )
}

fn prepare_batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepare");
    for (name, size, count) in [("100B", 100, 150), ("1KiB", 1024, 15), ("10B", 10, 1000)] {
        let sent = batch(Compression::None, count, size);
        group.throughput(Throughput::Bytes(sent.len() as u64));
        group.bench_with_input(BenchmarkId::new("plain", name), &sent, |b, sent| {
            let rules = rules();
            b.iter(|| prepare(black_box(sent.clone()), &rules, NOW).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("crc_only", name), &sent, |b, sent| {
            b.iter(|| verify_crc(black_box(sent)).unwrap());
        });
    }
    let sent = batch(Compression::None, 150, 100);
    group.throughput(Throughput::Bytes(sent.len() as u64));
    group.bench_function("log_append_time/100B", |b| {
        let mut rules = rules();
        rules.timestamp_type = TimestampType::LogAppendTime;
        b.iter(|| prepare(black_box(sent.clone()), &rules, NOW).unwrap());
    });
    for compression in &Compression::ALL[1..] {
        let name = compression.name();
        let kept = batch(*compression, 150, 100);
        group.bench_with_input(BenchmarkId::new("kept", name), &kept, |b, kept| {
            let rules = rules();
            b.iter(|| prepare(black_box(kept.clone()), &rules, NOW).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("recompressed", name), &sent, |b, sent| {
            let mut rules = rules();
            rules.compression = StoredCompression::Fixed(Codec::with_default_level(*compression));
            b.iter(|| prepare(black_box(sent.clone()), &rules, NOW).unwrap());
        });
    }
    group.finish();
}

fn read_batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    let one = batch(Compression::None, 150, 100);
    let many: Bytes = one.repeat(64).into();
    group.throughput(Throughput::Bytes(many.len() as u64));
    group.bench_function("headers", |b| {
        b.iter(|| batches(black_box(&many)).map(Result::unwrap).count());
    });
    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("records", |b| {
        b.iter(|| {
            records(black_box(&one))
                .unwrap()
                .map(Result::unwrap)
                .count()
        });
    });
    group.finish();
}

criterion_group!(benches, prepare_batches, read_batches);
criterion_main!(benches);

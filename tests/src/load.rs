//! A native load generator that costs far less CPU than a broker: frames are built once and sent many
//! times, answers are only walked, never decoded. Blocking sockets and plain threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// Bytes before the records of a magic-2 batch.
const BATCH_HEADER: usize = 61;
/// How long one answer may take before the run is called broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that sends one request and waits for its answer.
pub struct Connection {
    stream: TcpStream,
    correlation_id: i32,
}

impl Connection {
    /// Connects, trying again for `patience` while nobody listens.
    pub fn open(address: &str, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let target: SocketAddr = address
            .to_socket_addrs()?
            .next()
            .with_context(|| format!("no address: {address}"))?;
        loop {
            match TcpStream::connect_timeout(&target, Duration::from_secs(5)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                    return Ok(Self {
                        stream,
                        correlation_id: 0,
                    });
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("cannot connect to {address}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Sends `request` in `version` and decodes the answer.
    pub fn call<Q, A>(&mut self, key: ApiKey, version: i16, request: &Q) -> Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.correlation_id += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("barnabas-load")))
            .encode(&mut frame, Q::header_version(version))?;
        request.encode(&mut frame, version)?;
        let size = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&frame)?;
        let mut answer = Bytes::from(read_frame(&mut self.stream, Vec::new())?);
        let header = ResponseHeader::decode(&mut answer, A::header_version(version))?;
        ensure!(
            header.correlation_id == self.correlation_id,
            "an answer to another request"
        );
        A::decode(&mut answer, version)
    }
}

fn read_frame(stream: &mut TcpStream, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size))?;
    buffer.resize(size, 0);
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// Creates `topic` unless it exists, and waits until every partition has a leader.
pub fn ensure_topic(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let mut connection = Connection::open(bootstrap, Duration::from_secs(30))?;
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(name.clone())
                .with_num_partitions(partitions)
                .with_replication_factor(1),
        ]);
    let _: CreateTopicsResponse = connection.call(ApiKey::CreateTopics, 4, &request)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let request = MetadataRequest::default().with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(name.clone())),
        ]));
        let answer: MetadataResponse = connection.call(ApiKey::Metadata, 4, &request)?;
        let led = answer
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0)
            .count();
        if led == usize::try_from(partitions)? {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "topic {topic}: {led} of {partitions} have a leader"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An uncompressed batch of `count` records with values of `value_size` bytes, base offset 0.
pub fn batch(count: usize, value_size: usize, timestamp: i64) -> Vec<u8> {
    let mut records = Vec::with_capacity(count * (value_size + 16));
    let mut value: Vec<u8> = (0..value_size).map(|at| b'a' + (at % 23) as u8).collect();
    for index in 0..count {
        for (place, digit) in value.iter_mut().zip(format!("{index:08}").bytes()) {
            *place = digit;
        }
        put_record(&mut records, index, &value);
    }
    seal(&records, count, timestamp)
}

fn put_record(out: &mut Vec<u8>, index: usize, value: &[u8]) {
    let mut body = vec![0, 0]; // attributes, timestamp delta
    put_varint(&mut body, index as i64);
    put_varint(&mut body, -1); // no key
    put_varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    put_varint(&mut body, 0); // no headers
    put_varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn seal(records: &[u8], count: usize, timestamp: i64) -> Vec<u8> {
    let mut batch = Vec::with_capacity(BATCH_HEADER + records.len());
    batch.put_i64(0);
    batch.put_i32((BATCH_HEADER - 12 + records.len()) as i32);
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(count as i32 - 1);
    batch.put_i64(timestamp);
    batch.put_i64(timestamp);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count as i32);
    batch.extend_from_slice(records);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// A Produce v7 frame with one batch for one partition.
pub fn produce_frame(topic: &str, partition: i32, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(batch.len() + topic.len() + 64);
    frame.put_i32(0);
    put_header(&mut frame, 0, 7);
    frame.put_i16(-1); // no transactional id
    frame.put_i16(acks);
    frame.put_i32(30_000);
    frame.put_i32(1);
    put_string(&mut frame, topic);
    frame.put_i32(1);
    frame.put_i32(partition);
    frame.put_i32(batch.len() as i32);
    frame.extend_from_slice(batch);
    set_size(&mut frame);
    frame
}

/// A sessionless Fetch v11 frame for one partition.
fn fetch_frame(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(topic.len() + 96);
    frame.put_i32(0);
    put_header(&mut frame, 1, 11);
    frame.put_i32(-1); // replica id: a consumer
    frame.put_i32(500); // longest wait
    frame.put_i32(1);
    frame.put_i32(max_bytes);
    frame.put_i8(0);
    frame.put_i32(0);
    frame.put_i32(-1); // no session
    frame.put_i32(1);
    put_string(&mut frame, topic);
    frame.put_i32(1);
    frame.put_i32(partition);
    frame.put_i32(-1);
    frame.put_i64(offset);
    frame.put_i64(-1);
    frame.put_i32(max_bytes);
    frame.put_i32(0); // forgotten topics
    put_string(&mut frame, ""); // rack
    set_size(&mut frame);
    frame
}

fn put_header(frame: &mut Vec<u8>, key: i16, version: i16) {
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(1);
    put_string(frame, "barnabas-load");
}

fn put_string(frame: &mut Vec<u8>, text: &str) {
    frame.put_i16(text.len() as i16);
    frame.extend_from_slice(text.as_bytes());
}

fn set_size(frame: &mut [u8]) {
    let size = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&size.to_be_bytes());
}

/// What a run moved and how long it took.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Throughput {
    pub bytes: u64,
    pub records: u64,
    pub seconds: f64,
}

/// What to produce.
#[derive(Clone, Debug)]
pub struct Produce {
    pub topic: String,
    pub partitions: i32,
    pub record_size: usize,
    pub records_per_batch: usize,
    pub total_bytes: u64,
    pub connections: usize,
    pub in_flight: usize,
    pub acks: i16,
}

/// Produces until `total_bytes` of batches are acknowledged; any error code ends the run.
pub fn produce(bootstrap: &str, what: &Produce) -> Result<Throughput> {
    let timestamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let batch = Arc::new(batch(what.records_per_batch, what.record_size, timestamp));
    let requests = what.total_bytes.div_ceil(batch.len() as u64).max(1);
    let left = Arc::new(AtomicI64::new(requests as i64));
    let start = Instant::now();
    let threads: Vec<_> = (0..what.connections)
        .map(|number| {
            let (what, batch, left) = (what.clone(), batch.clone(), left.clone());
            let stream = Connection::open(bootstrap, Duration::from_secs(10))?.stream;
            let partition = number as i32 % what.partitions;
            Ok(std::thread::spawn(move || {
                let frame = produce_frame(&what.topic, partition, what.acks, &batch);
                pump(stream, &frame, what.in_flight, &left)
            }))
        })
        .collect::<Result<_>>()?;
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a producing thread panicked"))??;
    }
    Ok(Throughput {
        bytes: requests * batch.len() as u64,
        records: requests * what.records_per_batch as u64,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Fills a partition of the broker at `leader` with about so many bytes, acknowledged by all in-sync replicas.
pub fn fill(leader: &str, topic: &str, partition: i32, bytes: u64) -> Result<()> {
    let timestamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let batch = batch(10, 1000, timestamp);
    let left = AtomicI64::new(bytes.div_ceil(batch.len() as u64) as i64);
    let stream = Connection::open(leader, Duration::from_secs(10))?.stream;
    pump(
        stream,
        &produce_frame(topic, partition, -1, &batch),
        5,
        &left,
    )
}

/// Sends `frame` again and again, at most `in_flight` unanswered, until `left` is used up.
fn pump(stream: TcpStream, frame: &[u8], in_flight: usize, left: &AtomicI64) -> Result<()> {
    let mut reading = stream.try_clone()?;
    let mut writing = stream;
    let (sent, answered) = sync_channel::<()>(in_flight.saturating_sub(1));
    let reader = std::thread::spawn(move || -> Result<()> {
        let mut buffer = Vec::new();
        while answered.recv().is_ok() {
            buffer = read_frame(&mut reading, buffer)?;
            let error = produce_error(&buffer)?;
            ensure!(error == 0, "produce failed with error code {error}");
        }
        Ok(())
    });
    while left.fetch_sub(1, Ordering::Relaxed) > 0 {
        writing.write_all(frame)?;
        if sent.send(()).is_err() {
            break;
        }
    }
    drop(sent);
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("a reading thread panicked"))?
}

/// The error code of the only partition in a Produce v7 answer.
fn produce_error(mut answer: &[u8]) -> Result<i16> {
    ensure!(answer.len() >= 14, "a short answer");
    answer.advance(8);
    let name = usize::try_from(answer.get_i16())?;
    ensure!(answer.len() >= name + 10, "a short answer");
    answer.advance(name + 8);
    Ok(answer.get_i16())
}

/// Fetches a partition from `offset` until `until` (exclusive) and throws the data away.
pub fn consume(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    mut offset: i64,
    until: i64,
    max_bytes: i32,
) -> Result<Throughput> {
    let mut stream = Connection::open(bootstrap, Duration::from_secs(10))?.stream;
    let mut buffer = Vec::new();
    let (mut bytes, first) = (0, offset);
    let start = Instant::now();
    while offset < until {
        stream.write_all(&fetch_frame(topic, partition, offset, max_bytes))?;
        buffer = read_frame(&mut stream, buffer)?;
        let records = fetched_records(&buffer)?;
        bytes += records.len() as u64;
        offset = walk(records, |_, _| ())?.unwrap_or(offset);
    }
    Ok(Throughput {
        bytes,
        records: (offset - first) as u64,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The records of the only partition in a Fetch v11 answer.
fn fetched_records(answer: &[u8]) -> Result<&[u8]> {
    let mut rest = answer;
    ensure!(rest.len() >= 20, "a short answer");
    rest.advance(8);
    let error = rest.get_i16();
    ensure!(error == 0, "fetch failed with error code {error}");
    rest.advance(4);
    if rest.get_i32() == 0 {
        return Ok(&[]);
    }
    let name = usize::try_from(rest.get_i16())?;
    rest.advance(name + 4 + 4);
    let error = rest.get_i16();
    ensure!(
        error == 0,
        "fetch of the partition failed with error code {error}"
    );
    rest.advance(24);
    let aborted = rest.get_i32();
    ensure!(aborted <= 0, "aborted transactions in a test without any");
    rest.advance(4);
    let length = usize::try_from(rest.get_i32().max(0))?;
    ensure!(rest.len() >= length, "records beyond the answer");
    Ok(&rest[..length])
}

/// Calls `each(base_offset, batch)` for every whole batch; returns the offset after the last.
fn walk(mut records: &[u8], mut each: impl FnMut(i64, &[u8])) -> Result<Option<i64>> {
    let mut next = None;
    while records.len() >= BATCH_HEADER {
        let base = i64::from_be_bytes(records[..8].try_into()?);
        let size = 12 + usize::try_from(i32::from_be_bytes(records[8..12].try_into()?))?;
        if size > records.len() {
            break;
        }
        let last_delta = i32::from_be_bytes(records[23..27].try_into()?);
        each(base, &records[..size]);
        next = Some(base + i64::from(last_delta) + 1);
        records = &records[size..];
    }
    Ok(next)
}

/// End-to-end times: from just before a record is sent until a waiting consumer has it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Latency {
    pub records: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// Sends `count` records of `record_size` bytes at `rate` a second, one batch each, acks=all.
pub fn latency(
    bootstrap: &str,
    topic: &str,
    start_offset: i64,
    count: usize,
    record_size: usize,
    rate: f64,
) -> Result<Latency> {
    let origin = Instant::now();
    let sent: Arc<Vec<AtomicI64>> = Arc::new((0..count).map(|_| AtomicI64::new(0)).collect());
    let stream = Connection::open(bootstrap, Duration::from_secs(10))?.stream;
    let mut fetching = Connection::open(bootstrap, Duration::from_secs(10))?.stream;
    let (times, name) = (sent.clone(), topic.to_owned());
    let consumer = std::thread::spawn(move || -> Result<Vec<f64>> {
        let mut took = Vec::with_capacity(count);
        let (mut offset, mut buffer) = (start_offset, Vec::new());
        while took.len() < count {
            fetching.write_all(&fetch_frame(&name, 0, offset, 1 << 20))?;
            buffer = read_frame(&mut fetching, buffer)?;
            let arrived = origin.elapsed().as_nanos() as i64;
            let next = walk(fetched_records(&buffer)?, |base, _| {
                if let Some(sent) = times.get((base - start_offset) as usize) {
                    took.push((arrived - sent.load(Ordering::Acquire)) as f64 / 1e6);
                }
            })?;
            offset = next.unwrap_or(offset);
        }
        Ok(took)
    });
    let frame = produce_frame(topic, 0, -1, &batch(1, record_size, 1));
    let mut answers = stream.try_clone()?;
    let acknowledging = std::thread::spawn(move || -> Result<()> {
        let mut buffer = Vec::new();
        for _ in 0..count {
            buffer = read_frame(&mut answers, buffer)?;
            ensure!(produce_error(&buffer)? == 0, "a record was refused");
        }
        Ok(())
    });
    let mut writing = stream;
    for (number, time) in sent.iter().enumerate() {
        let due = Duration::from_secs_f64(number as f64 / rate);
        if let Some(wait) = due.checked_sub(origin.elapsed()) {
            std::thread::sleep(wait);
        }
        time.store(origin.elapsed().as_nanos() as i64, Ordering::Release);
        writing.write_all(&frame)?;
    }
    acknowledging
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    let mut took = consumer
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Ok(Latency {
        records: took.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
    })
}

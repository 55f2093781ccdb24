//! One broker in a process of its own: ours, or Apache Kafka 3.9.1 with the same properties.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::ports::free_port;
use crate::server_process::{ServerProcess, launched};
use crate::tools::{broker_binary, kafka_java};

const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Whose broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    Barnabas,
    /// Apache Kafka 3.9.1, which a test must accept before it may judge ours.
    Kafka,
}

impl BrokerKind {
    /// Ours, or Kafka if `BARNABAS_TEST_BROKER=kafka`.
    pub fn under_test() -> BrokerKind {
        match std::env::var("BARNABAS_TEST_BROKER").as_deref() {
            Ok("kafka") => BrokerKind::Kafka,
            _ => BrokerKind::Barnabas,
        }
    }
}

/// What a broker starts with. Starting again with the same value finds the same state.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    pub kind: BrokerKind,
    pub id: i32,
    /// Listens on this address.
    pub host: Ipv4Addr,
    /// Listens on this port of it.
    pub port: u16,
    /// A command that runs the broker's as its own process, such as one that enters a network namespace.
    pub launcher: Vec<String>,
    /// Holds the properties and the log; and, as `data`, the log directory unless `log.dirs` says else.
    pub directory: PathBuf,
    /// Any settings, also in place of those that the harness chooses.
    pub properties: BTreeMap<String, String>,
    /// Heap and collector of the Java virtual machine, should it be Kafka.
    pub java_options: Vec<String>,
}

impl BrokerOptions {
    /// A broker of the kind under test with id 0, a free port, and short timers.
    pub fn new(directory: &Path, zookeeper_connect: &str) -> BrokerOptions {
        let options = BrokerOptions {
            kind: BrokerKind::under_test(),
            id: 0,
            host: Ipv4Addr::LOCALHOST,
            launcher: Vec::new(),
            port: free_port(),
            directory: directory.to_owned(),
            properties: BTreeMap::new(),
            java_options: ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
                .map(str::to_owned)
                .to_vec(),
        };
        options
            .with("zookeeper.connect", zookeeper_connect)
            .with("offsets.topic.replication.factor", 1)
            .with("offsets.topic.num.partitions", 4)
            .with("transaction.state.log.replication.factor", 1)
            .with("transaction.state.log.min.isr", 1)
            .with("transaction.state.log.num.partitions", 4)
            .with("group.initial.rebalance.delay.ms", 0)
            .with("zookeeper.session.timeout.ms", 6000)
    }

    /// The same with one more property.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers and literals"
    )]
    pub fn with(mut self, key: &str, value: impl ToString) -> BrokerOptions {
        self.properties.insert(key.to_owned(), value.to_string());
        self
    }

    /// The same broker, but of this kind.
    #[must_use]
    pub fn of_kind(mut self, kind: BrokerKind) -> BrokerOptions {
        self.kind = kind;
        self
    }

    /// The log directory.
    pub fn log_dir(&self) -> PathBuf {
        match self.properties.get("log.dirs") {
            Some(directories) => PathBuf::from(directories.split(',').next().unwrap_or_default()),
            None => self.directory.join("data"),
        }
    }

    /// Host and port that clients connect to.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn socket_address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.port))
    }

    /// Starts the broker and waits until it serves and knows itself to be in the cluster.
    pub fn start(&self) -> Result<Broker> {
        let mut broker = self.spawn()?;
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// Starts the broker without waiting for anything.
    pub fn spawn(&self) -> Result<Broker> {
        fs::create_dir_all(&self.directory)
            .with_context(|| self.directory.display().to_string())?;
        let properties = self.directory.join("server.properties");
        fs::write(&properties, self.text())?;
        let log = self.directory.join("log");
        let process = match self.kind {
            BrokerKind::Barnabas => {
                let mut command = Command::new(broker_binary());
                command.arg(&properties);
                let mut command = launched(&self.launcher, command);
                ServerProcess::start("barnabas-broker", &mut command, &log)?
            }
            BrokerKind::Kafka => {
                let logging = self.directory.join("log4j.properties");
                fs::write(&logging, LOG4J)?;
                let options: Vec<&str> = self.java_options.iter().map(String::as_str).collect();
                let mut command = kafka_java(&options);
                command.arg(format!("-Dlog4j.configuration=file:{}", logging.display()));
                command.arg("kafka.Kafka").arg(&properties);
                let mut command = launched(&self.launcher, command);
                ServerProcess::start("Apache Kafka", &mut command, &log)?
            }
        };
        Ok(Broker {
            options: self.clone(),
            process,
        })
    }

    fn text(&self) -> String {
        let mut all = BTreeMap::from([
            ("broker.id".to_owned(), self.id.to_string()),
            (
                "listeners".to_owned(),
                format!("PLAINTEXT://{}:{}", self.host, self.port),
            ),
            ("log.dirs".to_owned(), self.log_dir().display().to_string()),
        ]);
        all.extend(self.properties.clone());
        all.into_iter().fold(String::new(), |text, (key, value)| {
            text + &key + "=" + &value + "\n"
        })
    }
}

const LOG4J: &str = "\
log4j.rootLogger=INFO, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
";

/// A running broker; dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    options: BrokerOptions,
    process: ServerProcess,
}

impl Broker {
    /// What it was started with.
    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// Host and port that clients connect to.
    pub fn address(&self) -> String {
        self.options.address()
    }

    /// The process it runs in.
    pub fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }

    /// Waits until it serves and knows itself to be in the cluster.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let address = self.options.socket_address();
        self.process.wait_until(START_PATIENCE, || {
            (brokers_known(address).unwrap_or(0) > 0).then_some(())
        })
    }

    /// Everything it has logged, also in earlier lives with the same directory.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until every partition of this topic has a leader: a broker just started knows of no topic.
    pub fn wait_for_leaders(&mut self, topic: &str) -> Result<()> {
        let address = self.options.socket_address();
        self.process.wait_until(START_PATIENCE, || {
            has_leaders(address, topic).unwrap_or(false).then_some(())
        })
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for its end. An error unless it ends as a clean stop does.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(STOP_PATIENCE)?;
        let wanted = match self.options.kind {
            BrokerKind::Barnabas => 0,
            // How Java ends on SIGTERM, shutdown hooks done.
            BrokerKind::Kafka => 143,
        };
        ensure!(
            status.code() == Some(wanted),
            "the broker ended with {status}"
        );
        Ok(())
    }
}

/// How many brokers the broker at `address` knows of.
pub fn brokers_known(address: SocketAddr) -> Result<usize> {
    // For no topic at all.
    Ok(metadata(
        address,
        &MetadataRequest::default().with_topics(Some(Vec::new())),
    )?
    .brokers
    .len())
}

/// Whether every partition of this topic has a leader, as the broker at `address` sees it.
fn has_leaders(address: SocketAddr, topic: &str) -> Result<bool> {
    // Asks for all topics: asking for this one would create it.
    let found = metadata(address, &MetadataRequest::default().with_topics(None))?;
    let found = found.topics.iter().find(|found| {
        found.error_code == 0
            && found
                .name
                .as_ref()
                .is_some_and(|name| name.as_str() == topic)
    });
    Ok(found.is_some_and(|topic| topic.partitions.iter().all(|one| one.error_code == 0)))
}

fn metadata(address: SocketAddr, request: &MetadataRequest) -> Result<MetadataResponse> {
    const VERSION: i16 = 1;
    let mut body = BytesMut::new();
    body.put_i16(ApiKey::Metadata as i16);
    body.put_i16(VERSION);
    body.put_i32(0); // correlation id
    body.put_i16(-1); // client id: null
    request.encode(&mut body, VERSION)?;

    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&u32::try_from(body.len())?.to_be_bytes())?;
    stream.write_all(&body)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer)?;
    let mut answer = Bytes::from(answer);
    answer.advance(size_of::<i32>()); // correlation id
    MetadataResponse::decode(&mut answer, VERSION)
}

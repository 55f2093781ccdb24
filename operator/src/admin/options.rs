//! How brokers are reached: addresses, TLS, SASL.

use std::path::PathBuf;
use std::time::Duration;

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// `host:port` of brokers to ask first.
    pub bootstrap: Vec<String>,
    pub client_id: String,
    pub tls: Option<TlsOptions>,
    pub sasl: Option<SaslOptions>,
    pub connect_timeout: Duration,
    /// How long an answer is waited for. Brokers are told to give up a little earlier.
    pub request_timeout: Duration,
}

impl AdminOptions {
    /// Plaintext to these addresses, with time-outs as Kafka's own admin client has them.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "barnabas-operator".to_owned(),
            tls: None,
            sasl: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// TLS to brokers, all files in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificates that brokers' certificates are signed by.
    pub ca: PathBuf,
    /// Certificate chain and private key (PKCS#8) that say who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Who we are, for listeners with SASL.
#[derive(Clone)]
pub struct SaslOptions {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for SaslOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslOptions")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    /// Its name in `sasl.enabled.mechanisms`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl std::str::FromStr for SaslMechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|one| one.name() == text)
            .ok_or_else(|| format!("`{text}` is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"))
    }
}

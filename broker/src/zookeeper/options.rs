//! How to reach an ensemble: `zookeeper.*` of the configuration, and the credentials of a JAAS file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use barnabas_core::config::BrokerConfig;

use super::ConnectError;

/// Name and password for SASL DIGEST-MD5. Beyond ASCII the client library hashes them in UTF-8, where Java takes
/// ISO 8859-1 for what it can say, so servers refuse such passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestCredentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for DigestCredentials {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestCredentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A file with certificates or a key, its format and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    pub location: PathBuf,
    /// `PEM`, `PKCS12` or `JKS`; guessed from the name if absent, as ZooKeeper does.
    pub kind: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Store {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("location", &self.location)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// `zookeeper.ssl.*`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// This broker's certificate and key, if servers ask for one.
    pub keystore: Option<Store>,
    /// Who may have signed the servers' certificates.
    pub truststore: Option<Store>,
    /// Whether a server's certificate has to name its host.
    pub checks_host_name: bool,
    /// `TLSv1.2`, `TLSv1.3`
    pub protocols: Vec<String>,
    /// All that there are, if empty.
    pub cipher_suites: Vec<String>,
}

/// Servers and chroot of `zookeeper.connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// Host (IPv6 without brackets) and port.
    pub servers: Vec<(String, u16)>,
    /// Begins with a slash and ends without one; empty for none.
    pub chroot: String,
}

/// The port of a server that is given without one.
const DEFAULT_PORT: u16 = 2181;

impl ConnectString {
    /// Reads `host:port,host:port/chroot`.
    pub fn parse(text: &str) -> Result<Self, ConnectError> {
        let invalid = |why: &str| {
            ConnectError::Options(format!(
                "`zookeeper.connect={text}` {why}; write it like `zk1:2181,zk2:2181/kafka`"
            ))
        };
        let (servers, chroot) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let chroot = chroot.trim_end();
        let chroot = if chroot == "/" { "" } else { chroot };
        let is_bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
        if chroot.split('/').skip(1).any(is_bad_part) {
            return Err(invalid("has a chroot that is no path"));
        }
        let servers = servers.split(',').map(str::trim);
        let servers = servers.filter(|server| !server.is_empty()).map(|server| {
            let (host, port) = split_server(server);
            let port = port.map_or(Ok(DEFAULT_PORT), str::parse);
            let port = port.map_err(|_| invalid("has a port that is no number up to 65535"))?;
            if host.is_empty() {
                return Err(invalid("has a server without a name"));
            }
            Ok((host.to_owned(), port))
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(invalid("names no server"));
        }
        Ok(Self {
            servers,
            chroot: chroot.to_owned(),
        })
    }
}

fn split_server(server: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = server.strip_prefix('[').and_then(|s| s.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match server.split_once(':') {
        // More than one colon is an IPv6 address without brackets, and so without a port.
        Some((_, rest)) if rest.contains(':') => (server, None),
        Some((host, port)) => (host, Some(port)),
        None => (server, None),
    }
}

/// Everything that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// As written, for messages.
    pub connect_text: String,
    pub connect: ConnectString,
    pub session_timeout: Duration,
    /// How long the first connection may take.
    pub connection_timeout: Duration,
    /// Requests that may wait for their answers at a time; at least 1.
    pub max_in_flight: usize,
    /// Whether nodes are made so that only this broker's principal may change them.
    pub set_acl: bool,
    pub tls: Option<TlsOptions>,
    pub sasl: Option<DigestCredentials>,
}

impl ZooKeeperOptions {
    /// Kafka's defaults for an ensemble.
    pub fn new(connect: &str) -> Result<Self, ConnectError> {
        Ok(Self {
            connect_text: connect.to_owned(),
            connect: ConnectString::parse(connect)?,
            session_timeout: Duration::from_secs(18),
            connection_timeout: Duration::from_secs(18),
            max_in_flight: 10,
            set_acl: false,
            tls: None,
            sasl: None,
        })
    }

    /// What the configuration says. A JAAS file is looked for as [`jaas_file`] tells.
    pub fn from_config(config: &BrokerConfig) -> Result<Self, ConnectError> {
        let session_timeout = millis(config.zookeeper_session_timeout_ms);
        let connection_timeout = config.zookeeper_connection_timeout_ms;
        let sasl = match jaas_file() {
            Some(path) => read_jaas(&path)?,
            None => None,
        };
        let options = Self {
            session_timeout,
            connection_timeout: connection_timeout.map_or(session_timeout, millis),
            max_in_flight: usize::try_from(config.zookeeper_max_in_flight_requests)
                .unwrap_or(1)
                .max(1),
            set_acl: config.zookeeper_set_acl,
            tls: config
                .zookeeper_ssl_client_enable
                .then(|| tls_options(config))
                .transpose()?,
            sasl,
            ..Self::new(&config.zookeeper_connect)?
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), ConnectError> {
        let tls = self.tls.as_ref();
        let is_known = self.sasl.is_some() || tls.is_some_and(|tls| tls.keystore.is_some());
        if self.set_acl && !is_known {
            return Err(ConnectError::Options(
                "`zookeeper.set.acl=true` needs a broker that ZooKeeper can tell from others: give it a \
                 `Client` section in a JAAS file, or a certificate by `zookeeper.ssl.keystore.location`"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What Java's `SSLContext` is made for; those before TLS 1.2 have no use without `zookeeper.ssl.enabled.protocols`.
const JAVA_PROTOCOLS: [&str; 5] = ["TLS", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

fn tls_options(config: &BrokerConfig) -> Result<TlsOptions, ConnectError> {
    if config.zookeeper_ssl_crl_enable || config.zookeeper_ssl_ocsp_enable {
        // Java asks whom a certificate names for revocation lists and for its status, by HTTP and LDAP.
        return Err(ConnectError::Options(
            "revocation checks are not supported: remove `zookeeper.ssl.crl.enable` and \
             `zookeeper.ssl.ocsp.enable`"
                .to_owned(),
        ));
    }
    let protocol = config.zookeeper_ssl_protocol.trim();
    if !JAVA_PROTOCOLS.contains(&protocol) {
        return Err(ConnectError::Options(format!(
            "`zookeeper.ssl.protocol={protocol}` is no protocol; use TLSv1.2 or TLSv1.3"
        )));
    }
    let store = |location: &Option<String>, kind: &Option<String>, password: Option<&str>| {
        location.as_ref().map(|location| Store {
            location: PathBuf::from(location),
            kind: kind.clone(),
            password: password.map(str::to_owned),
        })
    };
    let password = |password: &Option<barnabas_core::config::Password>| {
        password.as_ref().map(|password| password.0.clone())
    };
    let identification = &config.zookeeper_ssl_endpoint_identification_algorithm;
    let mut protocols = config.zookeeper_ssl_enabled_protocols.clone();
    if protocols.is_empty() {
        protocols.push(config.zookeeper_ssl_protocol.clone());
    }
    Ok(TlsOptions {
        keystore: store(
            &config.zookeeper_ssl_keystore_location,
            &config.zookeeper_ssl_keystore_type,
            password(&config.zookeeper_ssl_keystore_password).as_deref(),
        ),
        truststore: store(
            &config.zookeeper_ssl_truststore_location,
            &config.zookeeper_ssl_truststore_type,
            password(&config.zookeeper_ssl_truststore_password).as_deref(),
        ),
        checks_host_name: !identification.trim().is_empty(),
        protocols,
        cipher_suites: config.zookeeper_ssl_cipher_suites.clone(),
    })
}

/// The environment variable that names a JAAS file.
const JAAS_VARIABLE: &str = "BARNABAS_JAAS_FILE";
/// How Java is told of one, in the variable that Kafka's scripts hand to it.
const JAAS_PROPERTY: &str = "-Djava.security.auth.login.config=";

/// The JAAS file with the credentials for ZooKeeper: `BARNABAS_JAAS_FILE`, or what
/// `-Djava.security.auth.login.config=` names in `KAFKA_OPTS`, as installations of Kafka have it.
pub fn jaas_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(JAAS_VARIABLE) {
        return Some(PathBuf::from(path));
    }
    let options = std::env::var("KAFKA_OPTS").ok()?;
    let mut words = options.split_whitespace();
    let path = words.find_map(|word| word.strip_prefix(JAAS_PROPERTY))?;
    Some(PathBuf::from(path.trim_matches('"')))
}

/// The credentials in the `Client` section of a JAAS file; `None` if it has no such section.
pub fn read_jaas(path: &Path) -> Result<Option<DigestCredentials>, ConnectError> {
    let failed =
        |why: String| ConnectError::Options(format!("the JAAS file {} {why}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot be read: {error}; correct its path")))?;
    let sections = parse_jaas(&text).ok_or_else(|| failed("is not in JAAS' format".to_owned()))?;
    let Some(section) = sections
        .into_iter()
        .find(|section| section.name == "Client")
    else {
        return Ok(None);
    };
    if !section.module.ends_with(".DigestLoginModule") {
        return Err(failed(format!(
            "has {} in its `Client` section; only `org.apache.zookeeper.server.auth.DigestLoginModule` is supported",
            section.module
        )));
    }
    let option = |name: &str| {
        let mut options = section.options.iter();
        let found = options.find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| failed(format!("has no `{name}` in its `Client` section")))
    };
    let credentials = DigestCredentials {
        username: option("username")?,
        password: option("password")?,
    };
    let is_plain = |text: &str| text.is_ascii() && !text.contains(['"', '\\']);
    if !is_plain(&credentials.username) || !credentials.password.is_ascii() {
        return Err(failed(
            "has a user name or password in its `Client` section with characters beyond ASCII, or a user name \
             with quotes; choose others"
                .to_owned(),
        ));
    }
    Ok(Some(credentials))
}

#[derive(Debug, PartialEq, Eq)]
struct JaasSection {
    name: String,
    /// Class of the first login module.
    module: String,
    options: Vec<(String, String)>,
}

/// Reads `Name { module flag key="value" …; };` …, comments left out.
fn parse_jaas(text: &str) -> Option<Vec<JaasSection>> {
    let mut tokens = jaas_tokens(text)?.into_iter().peekable();
    let mut sections = Vec::new();
    while let Some(name) = tokens.next() {
        if tokens.next()? != "{" {
            return None;
        }
        let (module, _flag) = (tokens.next()?, tokens.next()?);
        let mut options = Vec::new();
        loop {
            match tokens.next()?.as_str() {
                ";" => break,
                key => {
                    let key = key.to_owned();
                    if tokens.next()? != "=" {
                        return None;
                    }
                    options.push((key, tokens.next()?));
                }
            }
        }
        // Further modules of the section are of no concern.
        while tokens.next()? != "}" {}
        if tokens.peek().is_some_and(|token| token == ";") {
            tokens.next();
        }
        sections.push(JaasSection {
            name,
            module,
            options,
        });
    }
    Some(sections)
}

fn jaas_tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = if first == '#' || rest.starts_with("//") {
            rest.split_once('\n').map_or("", |(_, tail)| tail)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/")?.1
        } else if matches!(first, '{' | '}' | ';' | '=') {
            tokens.push(first.to_string());
            &rest[1..]
        } else if matches!(first, '"' | '\'') {
            let (value, tail) = rest[1..].split_once(first)?;
            tokens.push(value.to_owned());
            tail
        } else {
            let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '=' | '"');
            let end = rest.find(ends).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            &rest[end..]
        }
        .trim_start();
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings() {
        let parse = |text: &str| {
            let parsed = ConnectString::parse(text).map_err(|error| error.to_string())?;
            let servers = parsed.servers.iter();
            let servers: Vec<_> = servers
                .map(|(host, port)| format!("{host}|{port}"))
                .collect();
            Ok::<_, String>(format!("{} {}", servers.join(" "), parsed.chroot))
        };
        assert_eq!(parse("a:1,b:2/x/y").as_deref(), Ok("a|1 b|2 /x/y"));
        assert_eq!(parse("a, [::1]:7/").as_deref(), Ok("a|2181 ::1|7 "));
        assert_eq!(parse("fe80::1").as_deref(), Ok("fe80::1|2181 "));
        for bad in ["", ",", "a:x", "a:70000", ":1", "a//x", "a/x/", "a/../b"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains("zookeeper.connect="), "{error}");
        }
    }

    fn configured(pairs: &[(&str, &str)]) -> Result<ZooKeeperOptions, String> {
        let pairs = [("zookeeper.connect", "zk:1/x")].iter().chain(pairs);
        let pairs = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = BrokerConfig::parse(&pairs.collect()).unwrap();
        ZooKeeperOptions::from_config(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_have_kafkas_defaults() {
        let options = configured(&[]).unwrap();
        assert_eq!(options, ZooKeeperOptions::new("zk:1/x").unwrap());
        let options = configured(&[
            ("zookeeper.session.timeout.ms", "6000"),
            ("zookeeper.max.in.flight.requests", "3"),
        ]);
        let options = options.unwrap();
        assert_eq!(
            options.connection_timeout,
            Duration::from_secs(6),
            "that of the session"
        );
        assert_eq!(options.max_in_flight, 3);
        let options = configured(&[("zookeeper.connection.timeout.ms", "70")]).unwrap();
        assert_eq!(options.connection_timeout, Duration::from_millis(70));
    }

    #[test]
    fn tls_is_as_configured() {
        let tls = [
            ("zookeeper.ssl.client.enable", "true"),
            ("zookeeper.ssl.truststore.location", "/ca.pem"),
            ("zookeeper.ssl.keystore.location", "/key.pem"),
            ("zookeeper.ssl.keystore.type", "PEM"),
            ("zookeeper.ssl.endpoint.identification.algorithm", ""),
            ("zookeeper.set.acl", "true"),
        ];
        let options = configured(&tls).unwrap().tls.unwrap();
        assert_eq!(options.truststore.unwrap().location, Path::new("/ca.pem"));
        assert_eq!(options.keystore.unwrap().kind.as_deref(), Some("PEM"));
        assert!(!options.checks_host_name);
        assert_eq!(options.protocols, ["TLSv1.2"]);
        let error = configured(&[&tls[..], &[("zookeeper.ssl.crl.enable", "true")]].concat());
        assert!(error.unwrap_err().contains("revocation"));
        let error = configured(&[("zookeeper.set.acl", "true")]).unwrap_err();
        assert!(error.contains("JAAS file"), "{error}");
    }

    #[test]
    fn jaas_files() {
        let text = r#"
            // of the broker itself
            KafkaServer { org.apache.kafka.common.security.plain.PlainLoginModule required
                username="admin" password="p;}"; other.Module optional; };
            /* to ZooKeeper */
            Client {
               org.apache.zookeeper.server.auth.DigestLoginModule required
               username="kafka" # a comment
               password='se=cret';
            };"#;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let credentials = read_jaas(file.path()).unwrap().unwrap();
        assert_eq!(
            (credentials.username.as_str(), credentials.password.as_str()),
            ("kafka", "se=cret")
        );
        std::fs::write(file.path(), "KafkaServer { a.B required; };").unwrap();
        assert_eq!(read_jaas(file.path()), Ok(None));
        for bad in [
            "Client {",
            "Client { x",
            "Client { a.Krb5LoginModule required; };",
            "Client { a.DigestLoginModule required username=\"x\"; };",
            "\"",
            "/*",
        ] {
            std::fs::write(file.path(), bad).unwrap();
            let error = read_jaas(file.path()).expect_err(bad).to_string();
            assert!(error.contains("JAAS file"), "{error}");
        }
    }
}

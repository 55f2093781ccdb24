//! TLS, SASL and access rights, on servers that demand them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barnabas_broker::zookeeper::options::{DigestCredentials, Store, TlsOptions};
use barnabas_broker::zookeeper::{
    ConnectError, Coordination, CoordinationError, Watch, ZooKeeper, ZooKeeperClient,
    ZooKeeperOptions,
};
use barnabas_tests::ports::free_port;
use barnabas_tests::zookeeper_server::{ServerOptions, ZooKeeperServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::subject::in_time;

fn options(connect: &str) -> ZooKeeperOptions {
    let mut options = ZooKeeperOptions::new(connect).unwrap();
    options.connection_timeout = Duration::from_secs(2);
    options
}

/// Somebody who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A key and a certificate for `host`, as PEM.
    fn issue(&self, host: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn store(directory: &Path, name: &str, content: &str) -> Store {
    let location = directory.join(name);
    std::fs::write(&location, content).unwrap();
    Store {
        location,
        kind: None,
        password: None,
    }
}

/// A server that serves TLS on the returned port, and asks for certificates.
fn tls_server(authority: &Authority, host: &str) -> (ZooKeeperServer, u16) {
    let port = free_port();
    let lines = [
        format!("secureClientPort={port}"),
        "secureClientPortAddress=127.0.0.1".to_owned(),
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
        "ssl.keyStore.location={directory}/server.pem".to_owned(),
        "ssl.keyStore.type=PEM".to_owned(),
        "ssl.trustStore.location={directory}/ca.pem".to_owned(),
        "ssl.trustStore.type=PEM".to_owned(),
        "ssl.ciphersuites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
            .to_owned(),
        "ssl.enabledProtocols=TLSv1.2,TLSv1.3".to_owned(),
        "ssl.clientAuth=need".to_owned(),
    ];
    let server = ZooKeeperServer::start_with(&ServerOptions {
        configuration: lines.to_vec(),
        java: Vec::new(),
        files: vec![
            ("server.pem".to_owned(), authority.issue(host).into_bytes()),
            ("ca.pem".to_owned(), authority.pem().into_bytes()),
        ],
    });
    (server.unwrap(), port)
}

async fn failure(options: &ZooKeeperOptions) -> ConnectError {
    in_time(ZooKeeper::connect(options))
        .await
        .err()
        .expect("no connection")
}

#[tokio::test]
async fn tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_server, port) = tls_server(&authority, "localhost");
    let directory = tempfile::tempdir().unwrap();
    let tls = TlsOptions {
        keystore: Some(store(
            directory.path(),
            "client.pem",
            &authority.issue("broker"),
        )),
        truststore: Some(store(directory.path(), "ca.pem", &authority.pem())),
        checks_host_name: true,
        protocols: vec!["TLSv1.2".to_owned()],
        cipher_suites: Vec::new(),
    };
    let with = |host: &str, tls: &TlsOptions| ZooKeeperOptions {
        tls: Some(tls.clone()),
        ..options(&format!("{host}:{port}/tls"))
    };
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let tls = TlsOptions {
            protocols: vec![protocol.to_owned()],
            ..tls.clone()
        };
        let zookeeper = in_time(ZooKeeper::connect(&with("localhost", &tls)))
            .await
            .unwrap();
        assert_eq!(in_time(zookeeper.topics()).await, Ok(vec![]));
        // Much data at once, in both directions.
        let path = format!("/{protocol}");
        let data = Some(vec![b'x'; 1_000_000]);
        let zk = zookeeper.coordination();
        in_time(zk.create_recursive(&path, data.clone()))
            .await
            .unwrap();
        let (read, _) = in_time(zk.get(&path, Watch::No)).await.unwrap().unwrap();
        assert_eq!(Some(read), data);
        zookeeper.close().await;
    }

    // The certificate names another host.
    let error = failure(&with("127.0.0.1", &tls)).await.to_string();
    assert!(error.contains("certificate"), "{error}");
    let any_name = TlsOptions {
        checks_host_name: false,
        ..tls.clone()
    };
    in_time(ZooKeeper::connect(&with("127.0.0.1", &any_name)))
        .await
        .unwrap();

    // Signed by somebody unknown to this side, to the server, or not at all.
    let foreign_trust = TlsOptions {
        truststore: Some(store(directory.path(), "foreign.pem", &stranger.pem())),
        ..any_name.clone()
    };
    let foreign_key = TlsOptions {
        keystore: Some(store(
            directory.path(),
            "mine.pem",
            &stranger.issue("broker"),
        )),
        ..tls.clone()
    };
    let no_key = TlsOptions {
        keystore: None,
        ..tls.clone()
    };
    for refused in [foreign_trust, foreign_key, no_key] {
        let error = failure(&with("localhost", &refused)).await;
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    }
    // In the clear to a port that speaks TLS.
    let error = failure(&options(&format!("localhost:{port}"))).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn tls_settings_that_cannot_work_are_named() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let good = TlsOptions {
        keystore: Some(store(
            directory.path(),
            "client.pem",
            &authority.issue("broker"),
        )),
        truststore: Some(store(directory.path(), "ca.pem", &authority.pem())),
        checks_host_name: true,
        protocols: vec!["TLSv1.2".to_owned()],
        cipher_suites: Vec::new(),
    };
    let at = |location: PathBuf| {
        Some(Store {
            location,
            kind: None,
            password: None,
        })
    };
    let of_kind = |kind: &str| {
        let file = store(directory.path(), "store", "no store");
        Some(Store {
            kind: Some(kind.to_owned()),
            ..file
        })
    };
    let damaged = store(directory.path(), "damaged.p12", "0 is how PKCS12 begins");
    let cases = [
        (
            TlsOptions {
                truststore: None,
                ..good.clone()
            },
            "truststore.location",
        ),
        (
            TlsOptions {
                truststore: of_kind("BCFKS"),
                ..good.clone()
            },
            "only PEM, PKCS12 and JKS are read",
        ),
        (
            TlsOptions {
                keystore: of_kind("PKCS12"),
                ..good.clone()
            },
            "cannot be read as PKCS12",
        ),
        (
            TlsOptions {
                keystore: Some(damaged),
                ..good.clone()
            },
            "`zookeeper.ssl.keystore.location`",
        ),
        (
            TlsOptions {
                truststore: at(directory.path().join("none")),
                ..good.clone()
            },
            "cannot be read",
        ),
        (
            TlsOptions {
                keystore: good.truststore.clone(),
                ..good.clone()
            },
            "no private key",
        ),
        (
            TlsOptions {
                protocols: vec!["SSLv3".into()],
                ..good.clone()
            },
            "TLSv1.2 or TLSv1.3",
        ),
        (
            TlsOptions {
                cipher_suites: vec!["X".into()],
                ..good.clone()
            },
            "cipher.suites",
        ),
    ];
    for (tls, expected) in cases {
        let options = ZooKeeperOptions {
            tls: Some(tls),
            ..options("localhost:1")
        };
        let error = failure(&options).await;
        assert!(matches!(error, ConnectError::Options(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

fn sasl_server() -> ZooKeeperServer {
    let users = "Server { org.apache.zookeeper.server.auth.DigestLoginModule required \
                 user_kafka=\"se, cret;\" user_other=\"pw\"; };";
    let server = ZooKeeperServer::start_with(&ServerOptions {
        configuration: vec![
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider".to_owned(),
        ],
        java: vec!["-Djava.security.auth.login.config={directory}/jaas.conf".to_owned()],
        files: vec![("jaas.conf".to_owned(), users.as_bytes().to_vec())],
    });
    server.unwrap()
}

fn as_user(connect: &str, username: &str, password: &str) -> ZooKeeperOptions {
    ZooKeeperOptions {
        sasl: Some(DigestCredentials {
            username: username.to_owned(),
            password: password.to_owned(),
        }),
        set_acl: true,
        ..options(connect)
    }
}

#[tokio::test]
async fn sasl_and_access_rights() {
    let mut server = sasl_server();
    let connect = format!("{}/acl", server.connect());
    let kafka = as_user(&connect, "kafka", "se, cret;");
    let zookeeper = in_time(ZooKeeper::connect(&kafka)).await.unwrap();
    let zk = zookeeper.coordination().clone();
    zk.create_recursive("/config/users/alice", Some(b"{}".to_vec()))
        .await
        .unwrap();
    zk.create_recursive("/brokers/topics/t", Some(b"{}".to_vec()))
        .await
        .unwrap();

    let anybody = ZooKeeperClient::connect(&options(&connect)).await.unwrap();
    let anybody: Arc<dyn Coordination> = anybody;
    let other = ZooKeeperClient::connect(&as_user(&connect, "other", "pw"))
        .await
        .unwrap();
    for stranger in [anybody, other] {
        // Topics may be read by all and written by the broker; users not even read.
        assert!(
            stranger
                .get("/brokers/topics/t", Watch::No)
                .await
                .unwrap()
                .is_some()
        );
        let denied = |result: Result<(), CoordinationError>| {
            assert_eq!(result, Err(CoordinationError::NoAuth));
        };
        denied(
            stranger
                .set("/brokers/topics/t", None, None)
                .await
                .map(drop),
        );
        denied(stranger.delete("/brokers/topics/t", None).await);
        denied(
            stranger
                .get("/config/users/alice", Watch::No)
                .await
                .map(drop),
        );
        // The old consumers' place is everybody's.
        stranger
            .create_recursive("/consumers/g", None)
            .await
            .unwrap();
        stranger.delete("/consumers/g", None).await.unwrap();
    }

    // The proof is given again with every connection, before what waits is sent.
    server.restart().unwrap();
    in_time(zk.set("/config/users/alice", None, None))
        .await
        .unwrap();
    zookeeper.close().await;

    let again = in_time(ZooKeeper::connect(&kafka)).await.unwrap();
    let user = again
        .coordination()
        .get("/config/users/alice", Watch::No)
        .await;
    assert!(user.unwrap().is_some());

    let error = failure(&as_user(&connect, "kafka", "wrong")).await;
    assert!(matches!(error, ConnectError::AuthFailed { .. }), "{error}");
    assert!(
        error.to_string().contains("user name or password"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_without_sasl_is_named() {
    let server = ZooKeeperServer::start().unwrap();
    let error = failure(&as_user(&server.connect(), "kafka", "x")).await;
    assert!(matches!(error, ConnectError::AuthFailed { .. }), "{error}");
}

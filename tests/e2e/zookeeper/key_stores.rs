//! TLS to ZooKeeper with the stores that Java's `keytool` makes, as most installations of Kafka have them.

use std::path::Path;
use std::process::Command;

use barnabas_tests::broker::BrokerOptions;
use barnabas_tests::ports::free_port;
use barnabas_tests::zookeeper_server::{ServerOptions, ZooKeeperServer};

const PASSWORD: &str = "changeit";

/// Keys and stores of a server and a client, who trust each other's certificates.
fn make_stores(directory: &Path) {
    let keytool = |arguments: &str| {
        let output = Command::new("keytool")
            .arg("-J-Xshare:auto")
            .arg("-J-XX:TieredStopAtLevel=1")
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .expect("keytool comes with Java");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "keytool {arguments}: {text}");
    };
    let stored = format!("-storepass {PASSWORD} -noprompt");
    for (name, format) in [("server", "PKCS12"), ("client", "JKS")] {
        keytool(&format!(
            "-genkeypair -alias {name} -keyalg RSA -keysize 2048 -dname CN={name} -validity 30 \
             -ext san=dns:localhost,ip:127.0.0.1 -storetype {format} -keystore {name}.jks \
             -keypass {PASSWORD} {stored}"
        ));
        keytool(&format!(
            "-exportcert -alias {name} -keystore {name}.jks -file {name}.der {stored}"
        ));
    }
    for (who, trusted, format) in [
        ("server-trust.jks", "client", "JKS"),
        ("trust.jks", "server", "JKS"),
        ("trust.p12", "server", "PKCS12"),
    ] {
        keytool(&format!(
            "-importcert -alias {trusted} -file {trusted}.der -storetype {format} -keystore {who} {stored}"
        ));
    }
    // As Java 8 wrote PKCS12: RC2 and triple DES.
    keytool(&format!(
        "-J-Dkeystore.pkcs12.legacy=true -importkeystore -srckeystore client.jks -srcstorepass {PASSWORD} \
         -destkeystore client.p12 -deststoretype PKCS12 -deststorepass {PASSWORD} -noprompt"
    ));
}

/// A server that speaks these protocols on the returned port, and asks for certificates.
fn server(stores: &Path, protocols: &str) -> (ZooKeeperServer, u16) {
    let port = free_port();
    let at = |name: &str| stores.join(name).display().to_string();
    let lines = [
        format!("secureClientPort={port}"),
        "secureClientPortAddress=127.0.0.1".to_owned(),
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
        format!("ssl.keyStore.location={}", at("server.jks")),
        format!("ssl.keyStore.password={PASSWORD}"),
        "ssl.keyStore.type=PKCS12".to_owned(),
        format!("ssl.trustStore.location={}", at("server-trust.jks")),
        format!("ssl.trustStore.password={PASSWORD}"),
        format!("ssl.enabledProtocols={protocols}"),
        // Those of TLS 1.3 are not among ZooKeeper's own.
        "ssl.ciphersuites=TLS_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned(),
        "ssl.clientAuth=need".to_owned(),
    ];
    let server = ZooKeeperServer::start_with(&ServerOptions {
        configuration: lines.to_vec(),
        java: Vec::new(),
        files: Vec::new(),
    });
    (server.unwrap(), port)
}

/// A broker that reaches ZooKeeper with these stores, by protocols as they are set by default.
fn broker(directory: &Path, port: u16, key_store: &Path, trust_store: &Path) -> BrokerOptions {
    BrokerOptions::new(directory, &format!("localhost:{port}/stores"))
        .with("zookeeper.connection.timeout.ms", 6000)
        .with(
            "zookeeper.clientCnxnSocket",
            "org.apache.zookeeper.ClientCnxnSocketNetty",
        )
        .with("zookeeper.ssl.client.enable", true)
        .with("zookeeper.ssl.keystore.location", key_store.display())
        .with("zookeeper.ssl.keystore.password", PASSWORD)
        .with("zookeeper.ssl.truststore.location", trust_store.display())
        .with("zookeeper.ssl.truststore.password", PASSWORD)
}

#[test]
fn stores_of_javas_keytool_lead_to_zookeeper_by_the_protocol_that_is_set() {
    let directory = tempfile::tempdir().unwrap();
    let stores = directory.path();
    make_stores(stores);
    let (_zookeeper, port) = server(stores, "TLSv1.2,TLSv1.3");
    let (_modern, modern_port) = server(stores, "TLSv1.3");
    for (key_store, trust_store) in [("client.jks", "trust.p12"), ("client.p12", "trust.jks")] {
        let options = broker(
            &stores.join(key_store.replace('.', "-")),
            port,
            &stores.join(key_store),
            &stores.join(trust_store),
        );
        let broker = options.start().unwrap();
        broker.stop().unwrap();
    }

    let options = broker(
        &stores.join("modern"),
        modern_port,
        &stores.join("client.jks"),
        &stores.join("trust.jks"),
    );
    let outcome = options.start();
    assert!(
        outcome.is_err(),
        "TLS 1.2 is all that is offered by default"
    );
    let modern = options
        .clone()
        .with("zookeeper.ssl.protocol", "TLSv1.3")
        .with("zookeeper.ssl.cipher.suites", "TLS_AES_256_GCM_SHA384");
    modern.start().unwrap().stop().unwrap();
    let mistaken = modern.with("zookeeper.ssl.keystore.password", "mistaken");
    assert!(mistaken.start().is_err(), "a password is a password");
}

//! Key stores and trust stores: PEM, and what Java's `keytool` writes (PKCS12 and JKS).
//!
//! Java takes a PKCS12 file for a JKS file and the other way round, whatever it is told or the name says
//! (`keystore.type.compat`), and so does this: many a `.jks` has been PKCS12 since Java 9.

use std::path::Path;

use base64::Engine as _;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::jks;
use crate::zookeeper::ConnectError;
use crate::zookeeper::options::Store;

/// What a store is for: as in the names of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    KeyStore,
    TrustStore,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeyStore => "keystore",
            Self::TrustStore => "truststore",
        }
    }
}

/// A private key and the certificates that lead from its own to somebody trusted.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// The chain and the key as PEM.
    pub(super) fn pem(&self) -> String {
        let label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        certificates_pem(&self.chain) + &pem(label, self.key.secret_der())
    }
}

/// Certificates as PEM.
pub(super) fn certificates_pem(certificates: &[CertificateDer<'_>]) -> String {
    let certificates = certificates.iter();
    certificates
        .map(|certificate| pem("CERTIFICATE", certificate))
        .collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// Everything in a store.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) identities: Vec<Identity>,
    /// Certificates of others.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Formats that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pem,
    Java,
}

/// A store that cannot be used, in a sentence that names its settings.
fn refused(store: &Store, role: Role, why: &str) -> ConnectError {
    let path = store.location.display();
    let role = role.name();
    ConnectError::Options(format!(
        "the ZooKeeper {role} {path} {why}; see `zookeeper.ssl.{role}.location`, `.type` and `.password`"
    ))
}

fn format_of(store: &Store, role: Role, data: &[u8]) -> Result<Format, ConnectError> {
    let extension = Path::new(&store.location).extension();
    let extension = extension.map(|extension| extension.to_string_lossy().to_uppercase());
    let named = store.kind.as_ref().map(|kind| kind.trim().to_uppercase());
    match named.or(extension).as_deref() {
        Some("PEM") => Ok(Format::Pem),
        Some("JKS" | "PKCS12" | "P12" | "PFX") => Ok(Format::Java),
        Some(kind) if store.kind.is_some() => {
            let why = format!("is of type {kind}, but only PEM, PKCS12 and JKS are read");
            Err(refused(store, role, &why))
        }
        // No other name says anything.
        _ if jks::is_jks(data) || data.first() == Some(&DER_SEQUENCE) => Ok(Format::Java),
        _ => Ok(Format::Pem),
    }
}

/// What every PKCS12 file begins with.
const DER_SEQUENCE: u8 = 0x30;

fn read(store: &Store, role: Role) -> Result<Contents, ConnectError> {
    let data = std::fs::read(&store.location)
        .map_err(|error| refused(store, role, &format!("cannot be read: {error}")))?;
    let password = store.password.as_deref();
    match format_of(store, role, &data)? {
        Format::Pem => read_pem(store, role, &data),
        Format::Java if jks::is_jks(&data) => {
            // Java does not ask who wrote a trust store if it is not given a password.
            let password = match role {
                Role::KeyStore => Some(password.unwrap_or_default()),
                Role::TrustStore => password,
            };
            let contents = jks::read(&data, password);
            contents.map_err(|error| refused(store, role, &error.to_string()))
        }
        Format::Java => read_pkcs12(store, role, &data),
    }
}

fn read_pem(store: &Store, role: Role, data: &[u8]) -> Result<Contents, ConnectError> {
    let chain = CertificateDer::pem_slice_iter(data).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| refused(store, role, &format!("is no PEM: {error}")))?;
    if role == Role::TrustStore {
        return Ok(Contents {
            certificates: chain,
            ..Contents::default()
        });
    }
    let key = match PrivateKeyDer::from_pem_slice(data) {
        Ok(key) => Some(key),
        Err(_) => encrypted_key(store, role, data)?,
    };
    let identity = key.map(|key| Identity { key, chain });
    Ok(Contents {
        identities: identity.into_iter().collect(),
        ..Contents::default()
    })
}

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// The key of a PEM file that is encrypted by the store's password (PKCS #8).
fn encrypted_key(
    store: &Store,
    role: Role,
    data: &[u8],
) -> Result<Option<PrivateKeyDer<'static>>, ConnectError> {
    let text = String::from_utf8_lossy(data);
    let Some((_, text)) = text.split_once(ENCRYPTED_BEGIN) else {
        return Ok(None);
    };
    let text = text
        .split_once(ENCRYPTED_END)
        .map_or(text, |(text, _)| text);
    let text: String = text.split_whitespace().collect();
    let failed = |why: String| refused(store, role, &format!("holds a key that {why}"));
    let der = base64::engine::general_purpose::STANDARD.decode(text);
    let der = der.map_err(|error| failed(format!("is no Base64: {error}")))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|error| failed(format!("is no PKCS #8: {error}")))?;
    let password = store.password.as_deref().unwrap_or_default();
    let key = encrypted
        .decrypt(password.as_bytes())
        .map_err(|error| failed(format!("cannot be decrypted by its password: {error}")))?;
    let key = PrivatePkcs8KeyDer::from(key.as_bytes().to_vec());
    Ok(Some(key.into()))
}

fn read_pkcs12(store: &Store, role: Role, data: &[u8]) -> Result<Contents, ConnectError> {
    let password = store.password.as_deref().unwrap_or_default();
    let keys = KeyStore::from_pkcs12(data, password, Pkcs12ImportPolicy::Strict);
    let keys = keys.map_err(|error| {
        let why =
            format!("cannot be read as PKCS12 ({error}): it is damaged, or has another password");
        refused(store, role, &why)
    })?;
    let certificate = |certificate: &p12_keystore::Certificate| {
        CertificateDer::from(certificate.as_der().to_vec())
    };
    let mut contents = Contents::default();
    for (_, entry) in keys.entries() {
        match entry {
            KeyStoreEntry::PrivateKeyChain(chain) => contents.identities.push(Identity {
                key: PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec()).into(),
                chain: chain.certs().iter().map(certificate).collect(),
            }),
            KeyStoreEntry::Certificate(one) => contents.certificates.push(certificate(one)),
            KeyStoreEntry::Secret(_) => {}
        }
    }
    Ok(contents)
}

/// Who this broker is: the first key in the store, by its alias.
pub(super) fn identity(store: &Store) -> Result<Identity, ConnectError> {
    let role = Role::KeyStore;
    let identities = read(store, role)?.identities.into_iter();
    let mut usable = identities.filter(|identity| !identity.chain.is_empty());
    usable
        .next()
        .ok_or_else(|| refused(store, role, "holds no private key with its certificate"))
}

/// Whom this broker trusts: certificates, and like Java the own certificate of each key.
pub(super) fn trusted(store: &Store) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let role = Role::TrustStore;
    let contents = read(store, role)?;
    let own = contents.identities.into_iter();
    let own = own.filter_map(|identity| identity.chain.into_iter().next());
    let certificates: Vec<_> = contents.certificates.into_iter().chain(own).collect();
    if certificates.is_empty() {
        return Err(refused(store, role, "holds no certificate to trust"));
    }
    Ok(certificates)
}

//! The certificates and keys of a cluster, made anew for each.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// The first address of the services' range, which the API server has.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Writes `ca.crt`, `ca.key`, `server.crt`, `server.key` (valid on `address`, and as a client's of the API server
/// towards nodes), `service-accounts.key` and `.pub` into `directory`.
pub(super) fn write(directory: &Path, addresses: &[Ipv4Addr]) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let put = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };

    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "lab-ca");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    put("ca.crt", authority.pem())?;
    put("ca.key", authority.key().serialize_pem())?;

    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let addresses = [&[Ipv4Addr::LOCALHOST, SERVICE], addresses].concat();
    let names = names
        .into_iter()
        .map(str::to_owned)
        .chain(addresses.iter().map(|ip| IpAddr::V4(*ip).to_string()));
    let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
    server.distinguished_name = subject("kube-apiserver", "system:masters");
    server.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    put("server.crt", server.signed_by(&key, &authority)?.pem())?;
    put("server.key", key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    put("service-accounts.key", accounts.serialize_pem())?;
    put("service-accounts.pub", accounts.public_key_pem())
}

fn subject(name: &str, organization: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::OrganizationName, organization);
    subject.push(DnType::CommonName, name);
    subject
}

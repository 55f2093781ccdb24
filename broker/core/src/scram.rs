//! SCRAM credentials of users as administrators change them (KIP-554, Kafka class `ZkAdminManager`).

use std::collections::BTreeMap;

use indexmap::IndexMap;

/// A hash function for SCRAM (RFC 5802).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    Sha256,
    Sha512,
}

impl Mechanism {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name, which is also the key of a user's credential in ZooKeeper.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }
}

/// What the iterations of a credential may be, for both mechanisms.
const MIN_ITERATIONS: i32 = 4096;
const MAX_ITERATIONS: i32 = 16384;

/// What is to become of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Delete,
    /// The number of iterations, and the text to store ([`stored_text`]).
    Upsert {
        iterations: i32,
        credential: String,
    },
}

/// A change of one credential of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    pub user: String,
    /// `None` for one that nobody knows.
    pub mechanism: Option<Mechanism>,
    pub change: Change,
}

/// Why the credentials of a user stay as they are. The texts are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("Username must not be empty")]
    EmptyName,
    #[error("Unknown SCRAM mechanism")]
    UnknownMechanism,
    #[error("Too few iterations")]
    TooFewIterations,
    #[error("Too many iterations")]
    TooManyIterations,
    #[error("A user credential cannot be altered twice in the same request")]
    Repeated,
    #[error("Attempt to delete a user credential that does not exist")]
    NothingToDelete,
}

/// What is wrong with the users named, deletions first; all others may be altered. A user with one bad alteration keeps
/// all credentials.
pub fn refusals(alterations: &[Alteration]) -> IndexMap<String, ScramError> {
    let mut refusals = IndexMap::new();
    // Of several problems of one user the last one is told, and that of an upsertion before that of a deletion.
    let is_deletion = |alteration: &&Alteration| matches!(alteration.change, Change::Delete);
    let deletions = alterations.iter().filter(is_deletion);
    let upsertions = alterations.iter().filter(|one| !is_deletion(one));
    for alteration in deletions.chain(upsertions) {
        if let Some(error) = problem(alteration) {
            refusals.insert(alteration.user.clone(), error);
        }
    }
    let mut seen = Vec::new();
    let mut repeated = Vec::new();
    for alteration in alterations {
        let credential = (&alteration.user, alteration.mechanism);
        if refusals.contains_key(&alteration.user) {
            continue;
        }
        if seen.contains(&credential) {
            repeated.push(&alteration.user);
        } else {
            seen.push(credential);
        }
    }
    for user in repeated {
        refusals.insert(user.clone(), ScramError::Repeated);
    }
    refusals
}

fn problem(alteration: &Alteration) -> Option<ScramError> {
    if alteration.user.is_empty() {
        return Some(ScramError::EmptyName);
    }
    if alteration.mechanism.is_none() {
        return Some(ScramError::UnknownMechanism);
    }
    match &alteration.change {
        Change::Upsert { iterations, .. } if *iterations > MAX_ITERATIONS => {
            Some(ScramError::TooManyIterations)
        }
        Change::Upsert { iterations, .. } if *iterations < MIN_ITERATIONS => {
            Some(ScramError::TooFewIterations)
        }
        Change::Upsert { .. } | Change::Delete => None,
    }
}

/// Applies what is asked of `user`, which [`refusals`] does not name, to its settings.
pub fn alter(
    user: &str,
    alterations: &[Alteration],
    settings: &mut BTreeMap<String, String>,
) -> Result<(), ScramError> {
    let of_user = || alterations.iter().filter(|one| one.user == user);
    for alteration in of_user() {
        let name = alteration.mechanism.map_or("", Mechanism::name);
        if matches!(alteration.change, Change::Delete) && !settings.contains_key(name) {
            return Err(ScramError::NothingToDelete);
        }
    }
    for alteration in of_user() {
        let Some(mechanism) = alteration.mechanism else {
            continue;
        };
        match &alteration.change {
            Change::Delete => settings.remove(mechanism.name()),
            Change::Upsert { credential, .. } => {
                settings.insert(mechanism.name().to_owned(), credential.clone())
            }
        };
    }
    Ok(())
}

/// A credential as it stands in ZooKeeper; all but the iterations in Base64 (Kafka class `ScramCredentialUtils`).
pub fn stored_text(salt: &[u8], stored_key: &[u8], server_key: &[u8], iterations: i32) -> String {
    use base64::Engine as _;
    let text = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    format!(
        "salt={},stored_key={},server_key={},iterations={iterations}",
        text(salt),
        text(stored_key),
        text(server_key)
    )
}

/// The iterations of a credential as it stands in ZooKeeper.
pub fn iterations_of(stored: &str) -> Option<i32> {
    let mut fields = stored.split(',');
    let iterations = fields.find_map(|field| field.strip_prefix("iterations="))?;
    iterations.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upsert(user: &str, mechanism: Option<Mechanism>, iterations: i32) -> Alteration {
        let credential = format!("salt=,stored_key=,server_key=,iterations={iterations}");
        Alteration {
            user: user.to_owned(),
            mechanism,
            change: Change::Upsert {
                iterations,
                credential,
            },
        }
    }

    fn delete(user: &str, mechanism: Mechanism) -> Alteration {
        Alteration {
            user: user.to_owned(),
            mechanism: Some(mechanism),
            change: Change::Delete,
        }
    }

    const SHA_256: Option<Mechanism> = Some(Mechanism::Sha256);

    #[test]
    fn a_user_with_one_bad_alteration_is_refused() {
        let alterations = [
            upsert("few", SHA_256, 4095),
            upsert("many", SHA_256, 16385),
            upsert("", None, 0),
            upsert("alien", None, 4096),
            upsert("twice", SHA_256, 4096),
            delete("twice", Mechanism::Sha256),
            upsert("both", SHA_256, 4096),
            upsert("both", Some(Mechanism::Sha512), 16384),
            delete("few", Mechanism::Sha512),
        ];
        let refusals = refusals(&alterations);
        let refusals: Vec<_> = refusals.iter().map(|(user, why)| (&**user, *why)).collect();
        assert_eq!(
            refusals,
            [
                ("few", ScramError::TooFewIterations),
                ("many", ScramError::TooManyIterations),
                ("", ScramError::EmptyName),
                ("alien", ScramError::UnknownMechanism),
                ("twice", ScramError::Repeated),
            ]
        );
    }

    #[test]
    fn credentials_are_put_beside_other_settings_and_removed() {
        let quota = ("producer_byte_rate".to_owned(), "1.0".to_owned());
        let mut settings = BTreeMap::from([quota]);
        let both = [
            upsert("u", SHA_256, 4096),
            upsert("other", Some(Mechanism::Sha512), 4096),
        ];
        assert_eq!(alter("u", &both, &mut settings), Ok(()));
        let keys: Vec<_> = settings.keys().map(String::as_str).collect();
        assert_eq!(keys, ["SCRAM-SHA-256", "producer_byte_rate"]);
        assert_eq!(iterations_of(&settings["SCRAM-SHA-256"]), Some(4096));
        let before = settings.clone();
        let one_too_many = [
            delete("u", Mechanism::Sha256),
            delete("u", Mechanism::Sha512),
        ];
        let outcome = alter("u", &one_too_many, &mut settings);
        assert_eq!(outcome, Err(ScramError::NothingToDelete));
        assert_eq!(settings, before);
        assert_eq!(alter("u", &one_too_many[..1], &mut settings), Ok(()));
        assert_eq!(settings.len(), 1);
    }
}

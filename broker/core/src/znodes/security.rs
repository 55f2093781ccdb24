//! Access control lists, SCRAM credentials and delegation tokens.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config::{desanitize, sanitize};
use super::json::{Fields, MalformedZnode, encode, object, parse, text};

/// What an ACL protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Topic,
    Group,
    Cluster,
    TransactionalId,
    DelegationToken,
    User,
}

impl ResourceType {
    pub const ALL: [Self; 6] = [
        Self::Topic,
        Self::Group,
        Self::Cluster,
        Self::TransactionalId,
        Self::DelegationToken,
        Self::User,
    ];

    /// The name in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::Group => "Group",
            Self::Cluster => "Cluster",
            Self::TransactionalId => "TransactionalId",
            Self::DelegationToken => "DelegationToken",
            Self::User => "User",
        }
    }

    /// The name in change notifications.
    pub fn constant_name(self) -> &'static str {
        match self {
            Self::Topic => "TOPIC",
            Self::Group => "GROUP",
            Self::Cluster => "CLUSTER",
            Self::TransactionalId => "TRANSACTIONAL_ID",
            Self::DelegationToken => "DELEGATION_TOKEN",
            Self::User => "USER",
        }
    }

    fn from_constant_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.constant_name() == name)
    }
}

/// How an ACL's resource name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternType {
    Literal,
    Prefixed,
}

/// One entry of an [`AclSet`], in Kafka's words (`Allow`, `Read`, `User:alice`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    pub principal: String,
    pub permission_type: String,
    pub operation: String,
    pub host: String,
}

/// `/kafka-acl/<Type>/<name>` and `/kafka-acl-extended/prefixed/<Type>/<name>` (version 1).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AclSet(pub Vec<Acl>);

impl AclSet {
    pub const LITERAL_ROOT: &'static str = "/kafka-acl";
    pub const PREFIXED_ROOT: &'static str = "/kafka-acl-extended/prefixed";

    /// The parent of the resources of one type.
    pub fn parent(pattern: PatternType, kind: ResourceType) -> String {
        let root = match pattern {
            PatternType::Literal => Self::LITERAL_ROOT,
            PatternType::Prefixed => Self::PREFIXED_ROOT,
        };
        format!("{root}/{}", kind.name())
    }

    /// The node of a resource. Names with a slash cannot be kept; callers refuse them.
    pub fn path(pattern: PatternType, kind: ResourceType, name: &str) -> String {
        format!("{}/{name}", Self::parent(pattern, kind))
    }

    pub fn encode(&self) -> Vec<u8> {
        let acls = self.0.iter().map(|acl| {
            json!({
                "principal": acl.principal,
                "permissionType": acl.permission_type,
                "operation": acl.operation,
                "host": acl.host,
            })
        });
        encode(&json!({"version": 1, "acls": acls.collect::<Value>()}))
    }

    /// Null or empty data is an empty set.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        if fields.int("version")? != 1 {
            return Err(MalformedZnode::Unexpected {
                key: "version",
                expected: "1",
            });
        }
        let acls = fields.list("acls")?.iter().map(|value| {
            let acl = object("acls", value)?;
            Ok(Acl {
                principal: acl.text("principal")?.to_owned(),
                permission_type: acl.text("permissionType")?.to_owned(),
                operation: acl.text("operation")?.to_owned(),
                host: acl.text("host")?.to_owned(),
            })
        });
        acls.collect::<Result<_, _>>().map(Self)
    }
}

/// The resource whose ACLs changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclChange {
    pub resource_type: ResourceType,
    pub name: String,
    pub pattern: PatternType,
}

/// `/kafka-acl-changes/acl_changes_<seq>`: a literal resource changed, as `TOPIC:name`.
#[derive(Clone, Copy, Debug)]
pub struct LiteralAclChange;

impl LiteralAclChange {
    pub const PARENT: &'static str = "/kafka-acl-changes";
    pub const PREFIX: &'static str = "acl_changes_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    pub fn encode(kind: ResourceType, name: &str) -> Vec<u8> {
        format!("{}:{name}", kind.constant_name()).into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<AclChange, MalformedZnode> {
        let text = std::str::from_utf8(bytes).ok();
        let (kind, name) = text
            .and_then(|text| text.split_once(':'))
            .and_then(|(kind, name)| Some((ResourceType::from_constant_name(kind)?, name)))
            .ok_or(MalformedZnode::NotText("`TYPE:name`"))?;
        Ok(AclChange {
            resource_type: kind,
            name: name.to_owned(),
            pattern: PatternType::Literal,
        })
    }
}

/// `/kafka-acl-extended-changes/acl_changes_<seq>` (version 1): a resource with another pattern changed.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedAclChange;

impl ExtendedAclChange {
    pub const PARENT: &'static str = "/kafka-acl-extended-changes";
    pub const PREFIX: &'static str = "acl_changes_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    pub fn encode(kind: ResourceType, name: &str) -> Vec<u8> {
        encode(&json!({
            "version": 1,
            "resourceType": kind.constant_name(),
            "name": name,
            "patternType": "PREFIXED",
        }))
    }

    pub fn decode(bytes: &[u8]) -> Result<AclChange, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let unexpected = |key, expected| MalformedZnode::Unexpected { key, expected };
        if fields.int("version")? != 1 {
            return Err(unexpected("version", "1"));
        }
        // A literal one here is refused by Kafka too.
        if fields.text("patternType")? != "PREFIXED" {
            return Err(unexpected("patternType", "`PREFIXED`"));
        }
        let kind = ResourceType::from_constant_name(fields.text("resourceType")?);
        Ok(AclChange {
            resource_type: kind.ok_or(unexpected("resourceType", "a resource type"))?,
            name: fields.text("name")?.to_owned(),
            pattern: PatternType::Prefixed,
        })
    }
}

/// The hash of a SCRAM credential; its name is also the key in a user's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    Sha256,
    Sha512,
}

impl ScramMechanism {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
    }
}

/// A SCRAM credential: the value of a [`ScramMechanism`] key in `/config/users/<user>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    pub salt: Vec<u8>,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
    pub iterations: i32,
}

impl std::fmt::Debug for ScramCredential {
    /// Leaves out the keys: they are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramCredential")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl ScramCredential {
    pub fn encode(&self) -> String {
        format!(
            "salt={},stored_key={},server_key={},iterations={}",
            STANDARD.encode(&self.salt),
            STANDARD.encode(&self.stored_key),
            STANDARD.encode(&self.server_key),
            self.iterations
        )
    }

    pub fn decode(text: &str) -> Result<Self, MalformedZnode> {
        let pairs: Option<BTreeMap<&str, &str>> =
            text.split(',').map(|pair| pair.split_once('=')).collect();
        let pairs = pairs.ok_or(MalformedZnode::NotText("a list of `key=value`"))?;
        let get = |key| pairs.get(key).copied().ok_or(MalformedZnode::Missing(key));
        let bytes = |key| {
            let decoded = STANDARD.decode(get(key)?);
            decoded.map_err(|_| MalformedZnode::Unexpected {
                key,
                expected: "base64",
            })
        };
        let iterations = get("iterations")?.parse();
        Ok(Self {
            salt: bytes("salt")?,
            stored_key: bytes("stored_key")?,
            server_key: bytes("server_key")?,
            iterations: iterations.map_err(|_| MalformedZnode::Unexpected {
                key: "iterations",
                expected: "a number",
            })?,
        })
    }
}

/// `/delegation_token/tokens/<token id>` (version 3; 1 and 2 are read). The HMAC is not kept: it follows from the id.
/// Principals are as `User:alice` here, sanitized in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInformation {
    pub token_id: String,
    pub owner: String,
    pub token_requester: String,
    pub renewers: Vec<String>,
    /// Milliseconds since the Unix epoch, like the other two.
    pub issue_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub expiry_timestamp_ms: i64,
}

impl TokenInformation {
    pub const PARENT: &'static str = "/delegation_token/tokens";

    pub fn path(token_id: &str) -> String {
        format!("{}/{token_id}", Self::PARENT)
    }

    pub fn encode(&self) -> Vec<u8> {
        let renewers: Vec<String> = self.renewers.iter().map(|name| sanitize(name)).collect();
        encode(&json!({
            "version": 3,
            "owner": sanitize(&self.owner),
            "tokenRequester": sanitize(&self.token_requester),
            "renewers": renewers,
            "issueTimestamp": self.issue_timestamp_ms,
            "maxTimestamp": self.max_timestamp_ms,
            "expiryTimestamp": self.expiry_timestamp_ms,
            "tokenId": self.token_id,
        }))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedZnode> {
        let value = parse(bytes)?;
        let fields = Fields::of(&value)?;
        let principal = |key, sanitized: &str| {
            desanitize(sanitized).map_err(|_| MalformedZnode::Unexpected {
                key,
                expected: "a principal",
            })
        };
        let owner = principal("owner", fields.text("owner")?)?;
        let token_requester = match fields.optional_text("tokenRequester")? {
            Some(requester) => principal("tokenRequester", requester)?,
            None => owner.clone(),
        };
        let renewers = fields.list("renewers")?.iter();
        let renewers = renewers.map(|value| principal("renewers", text("renewers", value)?));
        Ok(Self {
            token_id: fields.text("tokenId")?.to_owned(),
            owner,
            token_requester,
            renewers: renewers.collect::<Result<_, _>>()?,
            issue_timestamp_ms: fields.long("issueTimestamp")?,
            max_timestamp_ms: fields.long("maxTimestamp")?,
            expiry_timestamp_ms: fields.long("expiryTimestamp")?,
        })
    }
}

/// `/delegation_token/token_changes/token_change_<seq>`: the id of a token that changed, as text.
#[derive(Clone, Copy, Debug)]
pub struct TokenChange;

impl TokenChange {
    pub const PARENT: &'static str = "/delegation_token/token_changes";
    pub const PREFIX: &'static str = "token_change_";

    /// The path to create sequentially.
    pub fn path_prefix() -> String {
        format!("{}/{}", Self::PARENT, Self::PREFIX)
    }

    pub fn encode(token_id: &str) -> Vec<u8> {
        token_id.as_bytes().to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<String, MalformedZnode> {
        String::from_utf8(bytes.to_vec()).map_err(|_| MalformedZnode::NotText("a token id"))
    }
}

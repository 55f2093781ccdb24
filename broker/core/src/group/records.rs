//! The records of `__consumer_offsets`, byte for byte (schemas `OffsetCommitKey`, `OffsetCommitValue`,
//! `GroupMetadataKey`, `GroupMetadataValue`).
//!
//! Every version is read. Written are those of Kafka 3.9: keys 1 and 2, values 3, and value 1 for an
//! offset with an expiry of its own.

use std::sync::Arc;

use bytes::Bytes;

use crate::fields::{FieldError, Reader, Writer};
use crate::ids::{GroupId, LeaderEpoch, Offset, TopicName, TopicPartition};

/// A timestamp that is not there.
const NO_TIMESTAMP: i64 = -1;

/// Why a record of an internal topic cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRecordError {
    #[error("the record has no key")]
    NoKey,
    #[error("the version {0} of the value is not known")]
    UnknownValueVersion(i16),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    Offset {
        group: GroupId,
        partition: TopicPartition,
        /// `None` forgets the offset.
        commit: Option<OffsetCommit>,
    },
    Group {
        group: GroupId,
        /// `None` forgets the group.
        generation: Option<Generation>,
    },
    /// A kind of record that only later versions of Kafka write. It is passed over.
    Unknown { key_version: i16 },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    pub offset: Offset,
    /// -1 if the consumer did not say.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the consumer wants to be told again.
    pub metadata: Arc<str>,
    /// Milliseconds since the epoch.
    pub commit_timestamp: i64,
    /// When the offset may be forgotten, for those who said so (`OffsetCommit` v2 to v4).
    pub expire_timestamp: Option<i64>,
}

/// A generation of a group as its leader divided the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Empty for a group that never had members.
    pub protocol_type: Arc<str>,
    pub generation_id: i32,
    pub protocol: Option<Arc<str>>,
    pub leader: Option<Arc<str>>,
    /// When the group came into the state; -1 in old records.
    pub state_timestamp: i64,
    pub members: Vec<GenerationMember>,
}

/// A member in a [`Generation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// What the member said of itself under the protocol of the generation.
    pub subscription: Bytes,
    pub assignment: Bytes,
}

impl GroupRecord {
    /// The group that the record is about, if it is of a known kind.
    pub fn group(&self) -> Option<&GroupId> {
        match self {
            Self::Offset { group, .. } | Self::Group { group, .. } => Some(group),
            Self::Unknown { .. } => None,
        }
    }

    /// Reads key and value of a record.
    pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Self, GroupRecordError> {
        let mut key = Reader::new(key.ok_or(GroupRecordError::NoKey)?);
        match key.i16()? {
            0 | 1 => Ok(Self::Offset {
                group: key.string()?.into(),
                partition: TopicPartition {
                    topic: TopicName::from(key.string()?),
                    partition: key.i32()?,
                },
                commit: value.map(OffsetCommit::decode).transpose()?,
            }),
            2 => Ok(Self::Group {
                group: key.string()?.into(),
                generation: value.map(Generation::decode).transpose()?,
            }),
            key_version => Ok(Self::Unknown { key_version }),
        }
    }

    /// Key and value as Kafka 3.9 writes them; an error if a text is too long for them.
    pub fn encode(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), FieldError> {
        Ok(match self {
            Self::Offset {
                group,
                partition,
                commit,
            } => (
                offset_key(group, &partition.topic, partition.partition)?,
                commit.as_ref().map(OffsetCommit::encode).transpose()?,
            ),
            Self::Group { group, generation } => {
                let value = generation.as_ref().map(Generation::encode).transpose()?;
                (group_key(group)?, value)
            }
            Self::Unknown { key_version } => (key_version.to_be_bytes().to_vec(), None),
        })
    }
}

/// The key of a committed offset.
pub fn offset_key(group: &str, topic: &str, partition: i32) -> Result<Vec<u8>, FieldError> {
    let mut out = Writer::with_capacity(10 + group.len() + topic.len());
    out.i16(1);
    out.string(group);
    out.string(topic);
    out.i32(partition);
    out.finish()
}

/// The key of a group.
pub fn group_key(group: &str) -> Result<Vec<u8>, FieldError> {
    let mut out = Writer::with_capacity(4 + group.len());
    out.i16(2);
    out.string(group);
    out.finish()
}

impl OffsetCommit {
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Writer::with_capacity(32 + self.metadata.len());
        match self.expire_timestamp {
            None => {
                out.i16(3);
                out.i64(self.offset);
                out.i32(self.leader_epoch);
                out.string(&self.metadata);
                out.i64(self.commit_timestamp);
            }
            Some(expire_timestamp) => {
                out.i16(1);
                out.i64(self.offset);
                out.string(&self.metadata);
                out.i64(self.commit_timestamp);
                out.i64(expire_timestamp);
            }
        }
        out.finish()
    }

    pub fn decode(value: &Bytes) -> Result<Self, GroupRecordError> {
        let (version, mut value) = open_value(value)?;
        let offset = value.i64()?;
        let leader_epoch = if version >= 3 { value.i32()? } else { -1 };
        let metadata = value.string()?.into();
        let commit_timestamp = value.i64()?;
        let expire_timestamp = if version == 1 {
            value.i64()?
        } else {
            NO_TIMESTAMP
        };
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp: (expire_timestamp != NO_TIMESTAMP).then_some(expire_timestamp),
        })
    }
}

/// The version of a value, and what follows. Commits and generations have the same versions.
fn open_value(value: &Bytes) -> Result<(i16, Reader<'_>), GroupRecordError> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    if !(0..=4).contains(&version) {
        return Err(GroupRecordError::UnknownValueVersion(version));
    }
    if version >= 4 {
        value.flexible();
    }
    Ok((version, value))
}

impl Generation {
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Writer::with_capacity(64 + 256 * self.members.len());
        out.i16(3);
        out.string(&self.protocol_type);
        out.i32(self.generation_id);
        out.nullable_string(self.protocol.as_deref());
        out.nullable_string(self.leader.as_deref());
        out.i64(self.state_timestamp);
        out.i32(self.members.len() as i32);
        for member in &self.members {
            out.string(&member.member_id);
            out.nullable_string(member.group_instance_id.as_deref());
            out.string(&member.client_id);
            out.string(&member.client_host);
            out.i32(member.rebalance_timeout_ms);
            out.i32(member.session_timeout_ms);
            out.bytes(&member.subscription);
            out.bytes(&member.assignment);
        }
        out.finish()
    }

    pub fn decode(value: &Bytes) -> Result<Self, GroupRecordError> {
        let (version, mut value) = open_value(value)?;
        let protocol_type = value.string()?.into();
        let generation_id = value.i32()?;
        let protocol = value.nullable_string()?.map(Arc::from);
        let leader = value.nullable_string()?.map(Arc::from);
        let state_timestamp = if version >= 2 {
            value.i64()?
        } else {
            NO_TIMESTAMP
        };
        let count = value.count()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(GenerationMember::decode(&mut value, version)?);
        }
        Ok(Self {
            protocol_type,
            generation_id,
            protocol,
            leader,
            state_timestamp,
            members,
        })
    }
}

impl GenerationMember {
    fn decode(value: &mut Reader<'_>, version: i16) -> Result<Self, GroupRecordError> {
        let member_id = value.string()?.into();
        let group_instance_id = if version >= 3 {
            value.nullable_string()?.map(Arc::from)
        } else {
            None
        };
        let client_id = value.string()?.into();
        let client_host = value.string()?.into();
        let rebalance_timeout_ms = if version >= 1 {
            Some(value.i32()?)
        } else {
            None
        };
        let session_timeout_ms = value.i32()?;
        let subscription = value.bytes()?;
        let assignment = value.bytes()?;
        value.skip_tagged_fields()?;
        Ok(Self {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Arc<str>> {
        "\\PC{0,20}".prop_map(Arc::from)
    }

    fn blob() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    prop_compose! {
        fn commit()(
            offset in any::<i64>(),
            leader_epoch in any::<i32>(),
            metadata in text(),
            commit_timestamp in any::<i64>(),
            expire_timestamp in proptest::option::of(0..i64::MAX),
        ) -> OffsetCommit {
            OffsetCommit {
                offset,
                // The version with an expiry has no place for it.
                leader_epoch: if expire_timestamp.is_some() { -1 } else { leader_epoch },
                metadata,
                commit_timestamp,
                expire_timestamp,
            }
        }
    }

    prop_compose! {
        fn member()(
            member_id in text(),
            group_instance_id in proptest::option::of(text()),
            client_id in text(),
            client_host in text(),
            rebalance_timeout_ms in any::<i32>(),
            session_timeout_ms in any::<i32>(),
            subscription in blob(),
            assignment in blob(),
        ) -> GenerationMember {
            GenerationMember {
                member_id,
                group_instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms,
                session_timeout_ms,
                subscription,
                assignment,
            }
        }
    }

    prop_compose! {
        fn generation()(
            protocol_type in text(),
            generation_id in any::<i32>(),
            protocol in proptest::option::of(text()),
            leader in proptest::option::of(text()),
            state_timestamp in any::<i64>(),
            members in proptest::collection::vec(member(), 0..4),
        ) -> Generation {
            Generation { protocol_type, generation_id, protocol, leader, state_timestamp, members }
        }
    }

    fn record() -> impl Strategy<Value = GroupRecord> {
        let offset = (text(), text(), any::<i32>(), proptest::option::of(commit())).prop_map(
            |(group, topic, partition, commit)| GroupRecord::Offset {
                group,
                partition: TopicPartition { topic, partition },
                commit,
            },
        );
        let group = (text(), proptest::option::of(generation()))
            .prop_map(|(group, generation)| GroupRecord::Group { group, generation });
        prop_oneof![offset, group]
    }

    fn decode(key: Vec<u8>, value: Option<Vec<u8>>) -> Result<GroupRecord, GroupRecordError> {
        GroupRecord::decode(Some(&key.into()), value.map(Bytes::from).as_ref())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            let (key, value) = record.encode().unwrap();
            prop_assert_eq!(decode(key, value), Ok(record));
        }

        #[test]
        fn cut_values_are_errors(record in record(), cut in 1_usize..200) {
            let (key, value) = record.encode().unwrap();
            if let Some(mut value) = value {
                value.truncate(value.len().saturating_sub(cut));
                prop_assert!(decode(key, Some(value)).is_err());
            }
        }

        #[test]
        fn nothing_makes_the_reader_panic(key in blob(), value in blob()) {
            let _ = GroupRecord::decode(Some(&key), Some(&value));
        }
    }

    #[test]
    fn old_and_new_values_are_read() {
        let commit = |value: &[u8]| OffsetCommit::decode(&Bytes::copy_from_slice(value)).unwrap();
        let expected = |leader_epoch, expire_timestamp| OffsetCommit {
            offset: 5,
            leader_epoch,
            metadata: "m".into(),
            commit_timestamp: 7,
            expire_timestamp,
        };
        let offset = [0, 0, 0, 0, 0, 0, 0, 5];
        let time = [0, 0, 0, 0, 0, 0, 0, 7];
        let m = [0, 1, b'm'];
        assert_eq!(
            commit(&[&[0, 0][..], &offset, &m, &time].concat()),
            expected(-1, None)
        );
        let expires = [&[0, 1][..], &offset, &m, &time, &time].concat();
        assert_eq!(commit(&expires), expected(-1, Some(7)));
        let never = [&[0, 1][..], &offset, &m, &time, &[0xff; 8]].concat();
        assert_eq!(commit(&never), expected(-1, None));
        assert_eq!(
            commit(&[&[0, 2][..], &offset, &m, &time].concat()),
            expected(-1, None)
        );
        let flexible = [&[0, 4][..], &offset, &[0, 0, 0, 3], &[2, b'm'], &time, &[0]].concat();
        assert_eq!(commit(&flexible), expected(3, None));
    }
}

//! `partition.metadata`: the id of the topic that a log belongs to.

use std::io;

use barnabas_core::ids::TopicId;

use super::error::StorageError;
use super::place::Place;
use super::recovery::Stop;
use crate::files::Durability;

pub(crate) const NAME: &str = "partition.metadata";

/// The topic id, if the file exists. A power loss can leave the name with a part of the content, which is as good
/// as none: the next leader tells the id again.
pub(crate) fn read(place: &Place, stop: Stop) -> Result<Option<TopicId>, StorageError> {
    let path = place.path(NAME);
    let bytes = match place.files().read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::new("read", path, error)),
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    match parse(&bytes) {
        Ok(topic_id) => Ok(topic_id),
        Err(reason) if stop == Stop::Unclean => {
            tracing::warn!(path = %path.display(), reason, "the topic id is lost until a leader tells it");
            Ok(None)
        }
        Err(reason) => Err(StorageError::new(
            "understand",
            path,
            io::Error::new(io::ErrorKind::InvalidData, reason),
        )),
    }
}

pub(crate) fn write(place: &Place, topic_id: TopicId) -> Result<(), StorageError> {
    let path = place.path(NAME);
    let text = format!("version: 0\ntopic_id: {topic_id}");
    place
        .files()
        .replace(&path, text.as_bytes(), Durability::Written)
        .map_err(|source| StorageError::new("write", path, source))
}

fn parse(bytes: &[u8]) -> Result<Option<TopicId>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_default();
        let value = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'));
        value
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| format!("`{line}` is not {name}"))
    };
    let version = field("version")?;
    if version != "0" {
        return Err(format!("unknown version {version}"));
    }
    let topic_id: TopicId = field("topic_id")?
        .parse()
        .map_err(|error: barnabas_core::ids::InvalidTopicId| error.to_string())?;
    Ok(Some(topic_id).filter(|id| !id.0.is_nil()))
}

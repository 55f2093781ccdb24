//! `meta.properties`: to which broker and cluster a log directory belongs.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use barnabas_core::ids::BrokerId;

use super::error::{LogDirsError, StorageError};
use crate::files::{Durability, Files};

const NAME: &str = "meta.properties";
const VERSION: &str = "version";
const BROKER_ID: &str = "broker.id";
const CLUSTER_ID: &str = "cluster.id";

/// What the log directories say about broker and cluster.
#[derive(Debug)]
pub struct MetaProperties {
    directories: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Empty if there is no file yet.
    properties: Vec<(String, String)>,
}

impl Directory {
    fn get(&self, key: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: &str) {
        match self.properties.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.properties.push((key.to_owned(), value.to_owned())),
        }
    }
}

impl MetaProperties {
    /// Reads the files of all directories; one that cannot be read is left out, as loading will
    /// find it offline.
    pub fn read(files: &dyn Files, log_dirs: &[PathBuf]) -> Result<Self, LogDirsError> {
        let mut directories = Vec::with_capacity(log_dirs.len());
        for path in log_dirs {
            let file = path.join(NAME);
            let bytes = match files.read(&file) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => {
                    tracing::error!(path = %file.display(), %error, "cannot read the file");
                    continue;
                }
            };
            let directory = Directory {
                path: path.clone(),
                properties: parse(&bytes).map_err(|reason| LogDirsError::MetaProperties {
                    path: file.clone(),
                    reason,
                })?,
            };
            // KIP-866 and KRaft write version 1; a ZooKeeper broker must not touch such a directory.
            if let Some(version) = directory.get(VERSION)
                && version != "0"
            {
                return Err(LogDirsError::MetaProperties {
                    path: file,
                    reason: format!("version {version} is not of a broker that uses ZooKeeper"),
                });
            }
            directories.push(directory);
        }
        Ok(Self { directories })
    }

    /// The broker's id as the directories have it; an error if they contradict each other or
    /// `configured`.
    pub fn broker_id(
        &self,
        configured: Option<BrokerId>,
    ) -> Result<Option<BrokerId>, LogDirsError> {
        let mut known = configured;
        for directory in &self.directories {
            let Some(text) = directory.get(BROKER_ID) else {
                continue;
            };
            let id = text.trim().parse().map(BrokerId).map_err(|_| {
                self.contradiction(directory, format!("`{text}` is not a broker id"))
            })?;
            match known {
                Some(other) if other != id => {
                    return Err(self.contradiction(
                        directory,
                        format!(
                            "the directory belongs to broker {id}, but broker.id is {other}; \
                             if it was moved on purpose, change the file"
                        ),
                    ));
                }
                _ => known = Some(id),
            }
        }
        Ok(known)
    }

    /// Checks that no directory belongs to another cluster.
    pub fn check_cluster(&self, cluster_id: &str) -> Result<(), LogDirsError> {
        for directory in &self.directories {
            if let Some(stored) = directory.get(CLUSTER_ID)
                && stored != cluster_id
            {
                return Err(self.contradiction(
                    directory,
                    format!(
                        "the directory belongs to cluster {stored}, but ZooKeeper has {cluster_id}; \
                         is zookeeper.connect right?"
                    ),
                ));
            }
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "reads as a property of the whole")]
    fn contradiction(&self, directory: &Directory, reason: String) -> LogDirsError {
        LogDirsError::MetaProperties {
            path: directory.path.join(NAME),
            reason,
        }
    }

    /// Notes broker and cluster in every directory where they do not stand yet; other entries (as
    /// `directory.id`) are kept. `now_ms` is for the comment in the file.
    pub fn write(
        mut self,
        files: &dyn Files,
        broker_id: BrokerId,
        cluster_id: &str,
        now_ms: i64,
    ) -> Vec<StorageError> {
        let mut errors = Vec::new();
        for directory in &mut self.directories {
            let before = directory.properties.clone();
            directory.set(BROKER_ID, &broker_id.to_string());
            directory.set(VERSION, "0");
            directory.set(CLUSTER_ID, cluster_id);
            let path = directory.path.join(NAME);
            if before == directory.properties {
                continue;
            }
            let text = render(&directory.properties, now_ms);
            if let Err(source) = files.replace(&path, text.as_bytes(), Durability::Synced) {
                errors.push(StorageError::new("write", path, source));
            }
        }
        errors
    }
}

/// The `meta.properties` of a log directory.
pub fn meta_properties_path(log_dir: &Path) -> PathBuf {
    log_dir.join(NAME)
}

fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut properties = Vec::new();
    java_properties::PropertiesIter::new(bytes)
        .read_into(|key, value| properties.push((key, value)))
        .map_err(|error| error.to_string())?;
    Ok(properties)
}

fn render(properties: &[(String, String)], now_ms: i64) -> String {
    let mut text = format!("#\n#{}\n", date(now_ms));
    for (key, value) in properties {
        let _ = writeln!(text, "{}={}", escape(key), escape(value));
    }
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ':' | '=' | '#' | '!' | '\\' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// `Sun Nov 22 12:00:00 UTC 2026`, as Java prints dates.
fn date(now_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = now_ms.div_euclid(1000);
    let days = seconds.div_euclid(86400);
    let of_day = seconds.rem_euclid(86400);
    // Days are counted from 1 March of year 0, in eras of 400 years (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::memory::Memory;

    fn directory_with(text: &str) -> (Memory, Vec<PathBuf>) {
        let files = Memory::new();
        let path = PathBuf::from("/logs");
        files.create_directory(&path).unwrap();
        files
            .replace(&path.join(NAME), text.as_bytes(), Durability::Synced)
            .unwrap();
        (files, vec![path])
    }

    #[test]
    fn dates_are_as_java_prints_them() {
        assert_eq!(date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(date(1_795_348_800_000), "Sun Nov 22 12:00:00 UTC 2026");
        assert_eq!(date(951_782_400_000), "Tue Feb 29 00:00:00 UTC 2000");
    }

    #[test]
    fn a_new_directory_gets_the_file_and_an_old_one_keeps_what_else_it_says() {
        let (files, dirs) = directory_with("#\nversion=0\ndirectory.id=abc\\:d\n");
        let meta = MetaProperties::read(&files, &dirs).unwrap();
        assert_eq!(
            meta.broker_id(Some(BrokerId(3))).unwrap(),
            Some(BrokerId(3))
        );
        meta.check_cluster("c").unwrap();
        assert!(meta.write(&files, BrokerId(3), "c", 0).is_empty());
        let text = String::from_utf8(files.read(&dirs[0].join(NAME)).unwrap()).unwrap();
        assert_eq!(
            text,
            "#\n#Thu Jan 01 00:00:00 UTC 1970\nversion=0\ndirectory.id=abc\\:d\nbroker.id=3\ncluster.id=c\n"
        );
        let meta = MetaProperties::read(&files, &dirs).unwrap();
        assert_eq!(meta.broker_id(None).unwrap(), Some(BrokerId(3)));
        assert!(meta.broker_id(Some(BrokerId(4))).is_err());
        assert!(meta.check_cluster("other").is_err());
    }

    #[test]
    fn a_directory_of_kraft_is_refused() {
        let (files, dirs) = directory_with("version=1\nnode.id=1\n");
        assert!(MetaProperties::read(&files, &dirs).is_err());
    }
}

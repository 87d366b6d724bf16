//! The keys of the nodes: what others must know of them, and when they run out.
//!
//! ```toml
//! [[node.key]]                             # of the node above; at most four
//! public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
//! not_after = "2027-11-30T00:00:00Z"       # by the time of day; quoted or not
//! secret = "keys/a-2026.key"               # relative to this file; read by the node itself alone
//! ```
//!
//! Either every node has a key, and datagrams are sealed; or none has, and the file says `insecure = true`.

use jiff::Timestamp;

use super::*;
use crate::wire::seal::{KeyError, Listed, PublicKey};

/// The most keys that a node can have at one time.
pub const KEYS_MAX: usize = 4;

/// How long before a node's last key runs out its operator is warned.
pub const WARN_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// One key of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKey {
    /// What others know of it.
    pub public: PublicKey,
    /// The last second in which it is good, since 1970, by the time of day.
    pub not_after: u64,
    /// The file of its secret half, which only its node reads.
    pub secret: Option<PathBuf>,
}

impl NodeKey {
    /// When it runs out, for people: RFC 3339.
    pub fn not_after_text(&self) -> String {
        date_text(self.not_after)
    }
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn date_text(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.unwrap_or(Timestamp::MAX).to_string()
}

impl Node {
    /// When the last of its keys runs out, in seconds since 1970; none if it has no key.
    pub fn keyed_until(&self) -> Option<u64> {
        self.keys.iter().map(|key| key.not_after).max()
    }

    /// What others know of its keys.
    pub fn listed(&self) -> Vec<Listed> {
        let keys = self.keys.iter();
        keys.map(|key| Listed { public: key.public, not_after: key.not_after }).collect()
    }
}

/// What is wrong with a key in a cluster file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeKeyError {
    /// The public key is none.
    #[error("public: {0}")]
    Public(KeyError),
    /// The key is there twice.
    #[error(
        "public is also a key of node {other:?}: a key tells who has sent a datagram, so make one for each \
         node with `tenure keys new`"
    )]
    Taken {
        /// Whose it is, too; perhaps the same node's.
        other: String,
    },
    /// The date is none.
    #[error(
        "not_after {text:?} is no date with a time and an offset; write it as \"2027-11-30T00:00:00Z\""
    )]
    Date {
        /// The text.
        text: String,
    },
    /// The path of the secret names no file.
    #[error("secret {path:?} names no file; give the path that `tenure keys new --out` was given")]
    Secret {
        /// The path as written.
        path: String,
    },
    /// The secret would lie in a file that is something else.
    #[error("secret {path:?} is a file of {other:?} already; give each key a file of its own")]
    SecretTaken {
        /// The path as written.
        path: String,
        /// Whose it is.
        other: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    public: String,
    not_after: toml::Value,
    secret: Option<String>,
}

impl Reader {
    /// Either all nodes have keys, or none has and the operator says that it may be so.
    //= SPEC SEAL-8
    pub(super) fn sealing(&mut self, raw: &RawConfig) {
        let have_keys = raw.node.iter().any(|node| !node.key.is_empty());
        self.has_keys = have_keys;
        match (raw.insecure, have_keys) {
            (true, true) => self.errors.push(ConfigError::InsecureWithKeys),
            (false, false) => self.errors.push(ConfigError::Unsealed),
            (false, true) => {
                for node in raw.node.iter().filter(|node| node.key.is_empty()) {
                    let place = Place::Node(node.name.clone());
                    self.errors.push(ConfigError::NoKey { place });
                }
            }
            (true, false) => {}
        }
    }

    //= SPEC SEAL-8
    pub(super) fn keys(&mut self, name: &str, raw: &[RawKey], directory: &Path) -> Vec<NodeKey> {
        let place = Place::Node(name.to_owned());
        if raw.len() > KEYS_MAX {
            self.errors.push(ConfigError::TooManyKeys { place: place.clone(), have: raw.len() });
        }
        let mut keys = Vec::new();
        for (at, raw) in raw.iter().enumerate() {
            let mut refuse = |error| {
                let (place, number) = (place.clone(), at + 1);
                self.errors.push(ConfigError::Key { place, number, error });
            };
            let public = match PublicKey::parse(&raw.public) {
                Ok(public) => Some(public),
                Err(error) => {
                    refuse(NodeKeyError::Public(error));
                    None
                }
            };
            if let Some(public) = public {
                match self.keys.get(&public) {
                    Some(other) => refuse(NodeKeyError::Taken { other: other.clone() }),
                    None => {
                        self.keys.insert(public, name.to_owned());
                    }
                }
            }
            let text = match &raw.not_after {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let date = text.parse::<Timestamp>().ok();
            let not_after = date.and_then(|date| u64::try_from(date.as_second()).ok());
            if not_after.is_none() {
                refuse(NodeKeyError::Date { text });
            }
            let secret = raw.secret.as_deref().map(|path| {
                let full = directory.join(path);
                let (other, path) = (self.storages.get(&plain(&full)).cloned(), path.to_owned());
                if Path::new(&path).file_name().is_none()
                    || path.ends_with(std::path::is_separator)
                {
                    refuse(NodeKeyError::Secret { path });
                } else if let Some(other) = other {
                    refuse(NodeKeyError::SecretTaken { path, other });
                } else {
                    self.storages.insert(plain(&full), name.to_owned());
                }
                full
            });
            if let (Some(public), Some(not_after)) = (public, not_after) {
                keys.push(NodeKey { public, not_after, secret });
            }
        }
        keys
    }
}

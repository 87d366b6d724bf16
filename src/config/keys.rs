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
use crate::wire::seal::{KeyError, Listed, PublicKey, is_secret};

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
    /// The secret itself, instead of where it lies. The text is not repeated.
    #[error(
        "secret: this is the secret itself, and whoever reads this file knows it now: make a new key with \
         `tenure keys new --out`, and give the path of its file"
    )]
    SecretHere,
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
                if is_secret(&path) {
                    refuse(NodeKeyError::SecretHere);
                } else if Path::new(&path).file_name().is_none()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::seal::{KEY_LEN, SecretKey};

    fn public(n: u8) -> String {
        SecretKey::from_random([n; KEY_LEN]).public().to_string()
    }

    fn key(n: u8) -> String {
        format!(
            "[[node.key]]\npublic = \"{}\"\nnot_after = \"2027-01-01T00:00:00Z\"\nsecret = \"{n}.key\"\n",
            public(n)
        )
    }

    /// Nodes a, b and s, on other machines than this one, with these keys.
    fn file(keys: [&str; 3]) -> String {
        let mut text = String::from("cluster = \"orders\"\n");
        for (n, keys) in keys.iter().enumerate() {
            let (name, role) = [("a", "host"), ("b", "host"), ("s", "store")][n];
            text += &format!(
                "[[node]]\nname = \"{name}\"\nzone = \"z{n}\"\nroles = [\"{role}\"]\n\
                 address = \"192.0.2.{}:7100\"\nstorage = \"{name}.redb\"\n{keys}",
                n + 1
            );
        }
        text + "[[lease]]\nname = \"orders\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n"
    }

    fn good() -> String {
        file([&key(1), &(key(2) + &key(12)), &key(3)])
    }

    fn refused(text: &str) -> String {
        let errors = Config::parse(text).expect_err("must be refused");
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        all[0].clone()
    }

    //= SPEC SEAL-8 test
    #[test]
    fn nodes_with_keys_may_be_on_other_machines() {
        let config = Config::parse_in(&good(), Path::new("etc")).unwrap();
        assert!(!config.insecure);
        let b = config.node("b").unwrap();
        assert_eq!(b.listed().len(), 2);
        assert_eq!(b.keys[1].public.to_string(), public(12));
        assert_eq!(b.keys[1].secret.as_deref(), Some(Path::new("etc/12.key")));
        assert_eq!(b.keyed_until(), Some(1_798_761_600));
        assert_eq!(b.keys[0].not_after_text(), "2027-01-01T00:00:00Z");
        let others = good().replace("\"2027-01-01T00:00:00Z\"", "2027-01-01T02:00:00+02:00");
        let others = Config::parse_in(&others, Path::new("etc")).unwrap();
        assert_eq!(others, config, "a date of TOML, with another offset");
    }

    //= SPEC SEAL-8 test
    #[test]
    fn keys_that_cannot_be_used_are_refused_with_their_place() {
        let date = "\"2027-01-01T00:00:00Z\"";
        let secret = SecretKey::from_random([1; KEY_LEN]).to_text();
        for (from, to, place, what) in [
            (public(1), public(1)[1..].to_owned(), "node \"a\": key 1: public: ", "64 hexadecimal"),
            (public(1), "00".repeat(32), "node \"a\": key 1: public: ", "no secret key has"),
            (
                public(1),
                secret.trim_end().to_owned(),
                "node \"a\": key 1: public: ",
                "whoever reads this file knows it now",
            ),
            (public(12), public(1), "node \"b\": key 2: public ", "also a key of node \"a\""),
            (public(12), public(2), "node \"b\": key 2: public ", "also a key of node \"b\""),
            (date.into(), "\"2027-01-01\"".into(), "node \"a\": key 1: not_after", "no date"),
            (date.into(), "2027-01-01T00:00:00".into(), "node \"a\": key 1: not_after", "offset"),
            (date.into(), "\"soon\"".into(), "node \"a\": key 1: not_after \"soon\"", "no date"),
            (date.into(), "5".into(), "node \"a\": key 1: not_after", "no date"),
            (date.into(), "\"1969-01-01T00:00:00Z\"".into(), "node \"a\": key 1:", "no date"),
            ("12.key".into(), String::new(), "node \"b\": key 2: secret", "names no file"),
            (
                "12.key".into(),
                secret.trim_end().into(),
                "node \"b\": key 2: secret",
                "knows it now",
            ),
            ("12.key".into(), "./1.key".into(), "node \"b\": key 2: secret", "a file of \"a\""),
            ("12.key".into(), "b.redb".into(), "node \"b\": key 2: secret", "a file of \"b\""),
        ] {
            assert!(good().contains(&from), "{from}");
            let problem = refused(&good().replacen(&from, &to, 1));
            assert!(problem.starts_with(place) && problem.contains(what), "{to}: {problem}");
            assert!(!is_secret(&problem), "{problem}");
        }
        // What is no TOML is repeated, but for the digits.
        let secret = secret.trim_end();
        let (named, digits) = secret.split_once(':').expect("a prefix and digits");
        for text in [secret.to_owned(), format!("\"{secret}"), format!("[\"{secret}\"]")] {
            let problem = refused(&good().replacen("\"12.key\"", &text, 1));
            assert!(problem.contains(named) && !problem.contains(&digits[..8]), "{problem}");
        }
        // Nor does anything else say what was put into the wrong place.
        for (from, to) in
            [("name = \"a\"", format!("name = \"{secret}\"")), ("\"z1\"", format!("\"{secret}\""))]
        {
            let problems = Config::parse(&good().replacen(from, &to, 1)).unwrap_err().to_string();
            assert!(problems.contains(named) && !problems.contains(&digits[..8]), "{problems}");
        }
        let problem = refused(&good().replacen("secret = ", "secrets = ", 1));
        assert!(problem.contains("unknown field `secrets`"), "{problem}");
        let five: String = (1..=5).map(key).collect();
        let problem = refused(&file([&five, &key(6), &key(7)]));
        assert!(problem.starts_with("node \"a\": 5 keys, more than 4"), "{problem}");
    }

    //= SPEC SEAL-8 test
    #[test]
    fn all_nodes_have_keys_or_none() {
        let problem = refused(&file([&key(1), "", &key(3)]));
        assert!(problem.starts_with("node \"b\": it has no key"), "{problem}");
        let problem = refused(&format!("insecure = true\n{}", good()));
        assert!(problem.starts_with("insecure: nodes have keys"), "{problem}");
        // Without any, the first thing to say is what to do.
        let text = file(["", "", ""]).replace("192.0.2.", "127.0.0.");
        assert!(refused(&text).contains("`tenure keys new`"));
        for (address, what) in [("0.0.0.0:7100", "of one node"), ("224.0.0.1:7100", "of one node")]
        {
            let problem = refused(&good().replacen("192.0.2.1:7100", address, 1));
            assert!(
                problem.starts_with("node \"a\": address") && problem.contains(what),
                "{problem}"
            );
        }
    }
}

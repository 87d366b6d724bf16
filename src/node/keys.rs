//! The files of secret keys, the seal of a node that a cluster file describes, and the time of day.
//!
//! Keys run out by the time of day, and nothing else in a node looks at it. No lease and no fact rests on it: if it is
//! wrong, datagrams are refused that should not be, or the other way round, and that is all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{Config, Node};
use crate::wire::seal::{KeyError, Keyring, SecretKey};
use crate::wire::{Plain, Seal, Sealed};

/// More than a key file has.
const FILE_BYTES_MAX: u64 = 4096;

/// Why a node's keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot use the key file {path} ({reason}): `tenure keys new --out {path}` makes one")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The file is there already, and perhaps a node's only key.
    #[error("{path} is there already: a key is never overwritten; name another file")]
    Exists {
        /// The file.
        path: String,
    },
    /// Others can read the secret.
    #[error(
        "others than its owner can get at the key file {path} (mode {mode:o}): whoever can read it can \
         speak for the node; `chmod 600 {path}`, and make a new key if somebody may have read it"
    )]
    Open {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path}: {error}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        error: KeyError,
    },
    /// The cluster file lists another public key for this file.
    #[error(
        "node {node:?}: {path} holds the key {found}, and the cluster file lists {listed} for it: list \
         what `tenure keys show {path}` prints, in the cluster file of every node"
    )]
    Another {
        /// The node.
        node: String,
        /// The file.
        path: String,
        /// The public key of what is in it.
        found: String,
        /// The public key in the cluster file.
        listed: String,
    },
    /// The node's own key has no file.
    #[error(
        "node {node:?}: key {number} of it has no secret: add `secret = \"...\"`, the file that `tenure \
         keys new --out` has written"
    )]
    NoSecret {
        /// The node.
        node: String,
        /// Which of its keys, from 1.
        number: usize,
    },
    /// A public key with which everybody shares one secret.
    #[error(transparent)]
    Weak(#[from] KeyError),
}

/// Seconds since 1970, by the time of day: for keys alone.
#[allow(clippy::disallowed_types, reason = "a key runs out on a date; no lease is judged by it")]
pub fn time_of_day() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    // A clock before 1970 is no reason to call a key run out.
    since.map_or(0, |since| since.as_secs())
}

/// A key from the system's source of randomness.
///
/// # Errors
///
/// [`KeyFileError::File`], without a path, if the system has none.
pub fn new_secret() -> Result<SecretKey, KeyFileError> {
    use rand::TryRng as _;

    let mut bytes = Zeroizing::new([0; crate::wire::seal::KEY_LEN]);
    rand::rngs::SysRng.try_fill_bytes(&mut *bytes).map_err(|error| KeyFileError::File {
        path: String::new(),
        reason: format!("no randomness: {error}"),
    })?;
    Ok(SecretKey::from_random(*bytes))
}

/// Writes a key file that only its owner can read, and sees that it stays.
///
/// # Errors
///
/// [`KeyFileError::Exists`], or [`KeyFileError::File`].
//= SPEC SEAL-7
pub fn write_secret(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        file.write_all(key.to_text().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all())
            // Half a key would stand in the way of the next try.
            .inspect_err(|_| drop(fs::remove_file(path)))
    };
    write().map_err(|error| {
        let path = path.display().to_string();
        match error.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists { path },
            _ => KeyFileError::File { path, reason: error.to_string() },
        }
    })
}

/// Reads a key file that nobody else can read.
///
/// # Errors
///
/// [`KeyFileError`] says what to do.
//= SPEC SEAL-7
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let name = || path.display().to_string();
    let failed = |error: io::Error| KeyFileError::File { path: name(), reason: error.to_string() };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path: name(), mode });
    }
    // Of its final size from the start, so that no copy is left behind when it grows.
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    SecretKey::parse(&text).map_err(|error| KeyFileError::Content { path: name(), error })
}

/// What this node can seal with and open with, by the cluster file. A key of its own that has run out may have lost its
/// file; any other must be there.
///
/// # Errors
///
/// [`KeyFileError`] says what to do.
pub fn keyring(config: &Config, node: &Node) -> Result<Keyring, KeyFileError> {
    let now = time_of_day();
    let mut own = Vec::new();
    for (at, key) in node.keys.iter().enumerate() {
        match own_secret(node, at) {
            Ok(secret) => own.push((secret, key.not_after)),
            Err(_) if key.not_after < now => {}
            Err(error) => return Err(error),
        }
    }
    let peers: BTreeMap<_, _> = config.nodes.iter().map(|node| (node.id, node.listed())).collect();
    Ok(Keyring::new(&config.cluster, node.id, &own, &peers)?)
}

fn own_secret(node: &Node, at: usize) -> Result<SecretKey, KeyFileError> {
    let key = &node.keys[at];
    let Some(path) = &key.secret else {
        return Err(KeyFileError::NoSecret { node: node.name.clone(), number: at + 1 });
    };
    let secret = read_secret(path)?;
    let found = secret.public();
    if found != key.public {
        return Err(KeyFileError::Another {
            node: node.name.clone(),
            path: path.display().to_string(),
            found: found.to_string(),
            listed: key.public.to_string(),
        });
    }
    Ok(secret)
}

/// The seal of this life of a node: with a boot id that no other life has.
///
/// # Errors
///
/// [`KeyFileError`] says what to do.
//= SPEC SEAL-2
pub fn seal(config: &Config, node: &Node) -> Result<Box<dyn Seal>, KeyFileError> {
    if config.insecure {
        return Ok(Box::new(Plain));
    }
    Ok(Box::new(Sealed::new(keyring(config, node)?, rand::random())))
}

/// Why the keys of a cluster file that was read again are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// It describes another cluster than the node was started with.
    #[error(
        "its nodes or its cluster's name are not those that this node was started with: only keys are \
         read again, so start the node again for the rest"
    )]
    AnotherCluster,
    /// The node was started without keys.
    #[error("this node does not seal its datagrams: start it again under a file that has keys")]
    NotSealed,
    /// It has no keys.
    #[error("it has no keys any more: start the node again to run it without")]
    Insecure,
}

/// The keys of a cluster file that was read again, for a node that runs.
///
/// # Errors
///
/// [`RenewError`]; the node goes on with the keys that it has.
//= SPEC SEAL-10
pub fn renewed(old: &Config, new: &Config, node: &Node) -> Result<Keyring, RenewError> {
    let names = |config: &Config| -> Vec<_> {
        config.nodes.iter().map(|node| (node.id, node.name.clone())).collect()
    };
    if old.cluster != new.cluster || names(old) != names(new) {
        return Err(RenewError::AnotherCluster);
    }
    if old.insecure {
        return Err(RenewError::NotSealed);
    }
    if new.insecure {
        return Err(RenewError::Insecure);
    }
    let node = new.node(&node.name).expect("the names are the same");
    Ok(keyring(new, node)?)
}

/// What an operator is to be told of keys that run out, or have: of each node the last key. Empty as long as there is
/// more than a month left.
//= SPEC SEAL-9
pub fn warnings(config: &Config, now: u64) -> Vec<Ending> {
    let endings = config.nodes.iter().filter_map(|node| {
        let not_after = node.keyed_until()?;
        let ending = Ending { node: node.name.clone(), not_after, now };
        (not_after < now + crate::config::WARN_BEFORE.as_secs()).then_some(ending)
    });
    endings.collect()
}

/// The last key of a node runs out soon, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The node.
    pub node: String,
    /// The last second in which the key is good, since 1970.
    pub not_after: u64,
    now: u64,
}

impl Ending {
    /// Whether nothing can be sealed for the node, or by it, any more.
    pub fn has_run_out(&self) -> bool {
        self.not_after < self.now
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, not_after, now } = self;
        let date = crate::config::date_text(*not_after);
        if self.has_run_out() {
            write!(
                f,
                "node {node:?}: its last key has run out at {date}: nobody takes its datagrams"
            )?;
        } else {
            let left = span(not_after - now);
            write!(f, "node {node:?}: its last key runs out at {date}, in {left}")?;
        }
        f.write_str("; make the next one with `tenure keys new` and list it in the cluster file of every node")
    }
}

/// A time to come, for people.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Two hosts and a store with keys that are good until then.
    fn cluster(directory: &Path, not_after: u64) -> String {
        let mut text = String::from("cluster = \"keys\"\n");
        for (n, (name, role)) in
            [("a", "host"), ("b", "host"), ("s", "store")].into_iter().enumerate()
        {
            let key = new_secret().unwrap();
            let path = directory.join(format!("{name}.key"));
            let _ = fs::remove_file(&path);
            write_secret(&path, &key).unwrap();
            text += &format!(
                "[[node]]\nname = \"{name}\"\nzone = \"z{n}\"\nroles = [\"{role}\"]\n\
                 address = \"192.0.2.{n}:7100\"\nstorage = \"{name}.redb\"\n\
                 [[node.key]]\npublic = \"{}\"\nnot_after = \"{}\"\nsecret = \"{name}.key\"\n",
                key.public(),
                crate::config::date_text(not_after)
            );
        }
        text + "[[lease]]\nname = \"orders\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n"
    }

    //= SPEC SEAL-7 test
    #[test]
    fn a_key_file_is_made_once_and_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        let key = new_secret().unwrap();
        write_secret(&path, &key).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_secret(&path).unwrap().public(), key.public());
        let again = write_secret(&path, &new_secret().unwrap()).unwrap_err();
        assert!(matches!(again, KeyFileError::Exists { .. }), "{again}");
        assert_eq!(read_secret(&path).unwrap().public(), key.public(), "it is still there");
        for open in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let error = read_secret(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Open { mode, .. } if mode == open), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_secret(&path).is_ok());
        let missing = read_secret(&directory.path().join("b.key")).unwrap_err();
        assert!(missing.to_string().contains("tenure keys new"), "{missing}");
    }

    #[test]
    fn a_node_starts_with_its_own_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = cluster(directory.path(), time_of_day() + 1000);
        let parse = |text: &str| Config::parse_in(text, directory.path()).unwrap();
        let config = parse(&file);
        let ring = |config: &Config, name: &str| keyring(config, config.node(name).unwrap());
        assert!(ring(&config, "a").is_ok());
        assert!(seal(&config, config.node("a").unwrap()).unwrap().may_leave_the_machine());
        let swapped =
            file.replace("a.key", "x.key").replace("b.key", "a.key").replace("x.key", "b.key");
        let error = ring(&parse(&swapped), "a").unwrap_err();
        assert!(matches!(error, KeyFileError::Another { .. }), "{error}");
        assert!(!error.to_string().contains("secret-key"), "{error}");
        let error = ring(&parse(&file.replace("secret = \"a.key\"\n", "")), "a").unwrap_err();
        assert!(error.to_string().contains("node \"a\": key 1 of it has no secret"), "{error}");
        fs::write(directory.path().join("a.key"), "nonsense").unwrap();
        let error = ring(&config, "a").unwrap_err();
        assert!(matches!(error, KeyFileError::Content { .. }), "{error}");
        fs::remove_file(directory.path().join("a.key")).unwrap();
        assert!(matches!(ring(&config, "a"), Err(KeyFileError::File { .. })));
        assert!(ring(&config, "b").is_ok(), "the others need no secret but their own");
        // One that has run out is not missed.
        let past = cluster(directory.path(), time_of_day() - 1000);
        fs::remove_file(directory.path().join("a.key")).unwrap();
        assert!(ring(&parse(&past), "a").is_ok());
    }

    //= SPEC SEAL-10 test
    #[test]
    fn only_keys_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let later = time_of_day() + 1000;
        let old = cluster(directory.path(), later);
        let parse = |text: &str| Config::parse_in(text, directory.path()).unwrap();
        let renew = |new: &str| {
            let old = parse(&old);
            renewed(&old, &parse(new), old.node("a").unwrap()).map(|_| ())
        };
        assert_eq!(renew(&cluster(directory.path(), later)), Ok(()), "all keys are others");
        let other = cluster(directory.path(), later);
        let renamed = other.replace("cluster = \"keys\"", "cluster = \"other\"");
        assert_eq!(renew(&renamed), Err(RenewError::AnotherCluster));
        let renamed = other.replace("\"b\"", "\"c\"");
        assert_eq!(renew(&renamed), Err(RenewError::AnotherCluster));
        fs::remove_file(directory.path().join("a.key")).unwrap();
        assert!(matches!(renew(&other), Err(RenewError::Key(_))));
        // A node that runs without keys gets them at a start.
        let new = Config::parse_in(&other, directory.path()).unwrap();
        let old = Config { insecure: true, ..new.clone() };
        assert_eq!(renewed(&old, &new, &new.nodes[0]).err(), Some(RenewError::NotSealed));
    }

    //= SPEC SEAL-9 test
    #[test]
    fn the_last_key_of_each_node_is_warned_of_a_month_before() {
        let directory = tempfile::tempdir().unwrap();
        let end = time_of_day() + 365 * 86_400;
        let config = Config::parse_in(&cluster(directory.path(), end), directory.path()).unwrap();
        assert_eq!(warnings(&config, end - 30 * 86_400), []);
        let month = warnings(&config, end - 30 * 86_400 + 1);
        assert_eq!(month.len(), 3);
        assert!(
            !month[0].has_run_out() && month[0].to_string().contains("in 29 d"),
            "{}",
            month[0]
        );
        let last = &warnings(&config, end)[0];
        assert!(!last.has_run_out() && last.to_string().contains("in 0 s"), "{last}");
        let past = &warnings(&config, end + 1)[0];
        assert!(past.has_run_out() && past.to_string().contains("has run out at"), "{past}");
        assert_eq!(
            [119, 120, 7_200, 172_799, 172_800].map(span),
            ["119 s", "2 min", "2 h", "47 h", "2 d"]
        );
    }
}

//! Nodes that work for a region: from a cluster file and a name to a control plane or an IRC server.
//!
//! The same runtime runs them as runs the nodes of a lease. [`control`] is what customers and operators
//! talk to.

mod ages;
pub mod control;
pub mod health;
mod json;
mod looks;
mod operators;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::keys::{self, KeyFileError};
use super::storage::Legend;
use super::{Bind, HandBack, Spec};
use crate::config::{Config, Node, Region, Role};
use crate::irc::Party;
use crate::irc::control::ControlPlane;
use crate::irc::facts::SealKey;
use crate::irc::msg::{Answer, CallError, Kind, Msg};
use crate::irc::safeguards::Safeguards;
use crate::irc::server::IrcServer;

pub use json::{audited, id_text, parse_id, parse_record, parse_version, record_text};

/// The index under which a region's node has its actor.
pub const INDEX: u16 = 0;

/// Why a node of a region cannot be made. Nothing has been opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// There is no node of that name that works for a region.
    #[error("{name:?} works for no region; the nodes that do are {}", .known.join(", "))]
    UnknownNode {
        /// The name.
        name: String,
        /// The nodes that do.
        known: Vec<String>,
    },
    /// The key cannot be read or made.
    #[error("cannot use the seal key {} ({reason}): it holds 32 hexadecimal digits", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The keys of the node's datagrams cannot be used.
    #[error(transparent)]
    NodeKeys(#[from] KeyFileError),
    /// The key is gone, and the region has facts under it.
    #[error(
        "the seal key {} is not there, but {} is: put the key back; without it the region does not \
         know its own facts again",
        path.display(),
        storage.display()
    )]
    KeyGone {
        /// The key.
        path: PathBuf,
        /// The storage.
        storage: PathBuf,
    },
}

/// What a customer's call came to.
pub type Told = Result<Box<Answer>, CallError>;

/// The calls that wait for their answers: those of the control socket, by number.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_number: BTreeMap<u64, oneshot::Sender<Told>>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> (u64, oneshot::Receiver<Told>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.by_number.insert(number, sender);
        (number, receiver)
    }

    fn close(&self, number: u64) {
        self.lock().by_number.remove(&number);
    }

    fn told(&self, number: u64, told: Told) {
        if let Some(waiting) = self.lock().by_number.remove(&number) {
            // Who has stopped waiting asks again, under the same token.
            let _ = waiting.send(told);
        }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.lock().by_number.len()
    }
}

/// What the node of this name is to be, and where the answers to its customers' calls arrive.
///
/// A control plane reads its seal key, and makes one if neither key nor storage are there yet.
///
/// # Errors
///
/// [`RegionError`].
pub fn spec(config: &Config, name: &str) -> Result<(Spec<Party>, Calls), RegionError> {
    let node = config.node(name);
    let Some((node, region)) = node.and_then(|node| Some((node, config.region_of(node.id)?)))
    else {
        let of_region = |node: &&Node| config.region_of(node.id).is_some();
        let known = config.nodes.iter().filter(of_region).map(|node| node.name.clone()).collect();
        return Err(RegionError::UnknownNode { name: name.to_owned(), known });
    };
    let peers = config.nodes.iter().map(|node| node.address).collect();
    let mut spec = Spec::new(config.cluster.clone(), node.id, Bind::To(node.address), peers);
    spec.storage = Some(node.storage.clone());
    spec.seal = keys::seal(config, node)?;
    let party = match node.role {
        Role::ControlPlane => {
            let key = seal_key(&region.seal_key, &node.storage)?;
            spec.legend = Some(legend(config, region));
            Party::Control(control_plane(config, node, region, key))
        }
        _ => Party::Server(server(config, region)),
    };
    spec.actors = vec![(INDEX, party)];
    let calls = Calls::default();
    let told = calls.clone();
    // An answer that the control plane gives to its own node is for the control socket. It comes here
    // when all that it says is durable.
    spec.hooks = Box::new(move |_: u16, msg: &Msg| {
        if let Msg::Told { n, result } = msg {
            told.told(*n, result.clone());
        }
        HandBack::Now
    });
    Ok((spec, calls))
}

/// What the numbers in the storage of this region's control plane stand for.
pub fn legend(config: &Config, region: &Region) -> Legend {
    let regions = config.regions.iter().map(|region| region.name.clone()).collect();
    Legend { regions, tick: region.policy.tick }
}

fn control_plane(config: &Config, node: &Node, region: &Region, key: SealKey) -> ControlPlane {
    let others = config.regions.iter().map(|other| other.index);
    let servers = config.regions.iter().flat_map(|region| {
        region.servers.iter().map(|&server| (server, region.index)).collect::<Vec<_>>()
    });
    ControlPlane {
        me: node.id,
        region: region.index,
        others: others.filter(|&other| other != region.index).collect(),
        servers: servers.collect(),
        customers: BTreeMap::new(),
        networks: region.networks.clone(),
        key,
        life: rand::random(),
        founders: false,
        policy: region.policy.clone(),
        safeguards: Safeguards::ALL,
    }
}

fn server(config: &Config, region: &Region) -> IrcServer {
    let others = config.regions.iter().filter(|other| other.index != region.index);
    IrcServer {
        control: region.control_plane,
        remotes: others.map(|other| (other.index, other.control_plane)).collect(),
        kinds: BTreeSet::from([Kind::PEERING, Kind::NOTICE]),
        width: region.carrier.width,
        poll: region.carrier.poll,
        deadline: region.carrier.call,
        safeguards: Safeguards::ALL,
    }
}

/// Reads a seal key. Makes it if there is none and there is no storage whose facts would need it.
//= SPEC REGION-3
pub(crate) fn seal_key(path: &Path, storage: &Path) -> Result<SealKey, RegionError> {
    let wrong = |reason: String| RegionError::Key { path: path.to_owned(), reason };
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| wrong("it holds something else".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if storage.exists() {
                let (path, storage) = (path.to_owned(), storage.to_owned());
                return Err(RegionError::KeyGone { path, storage });
            }
            let key = [rand::random(), rand::random()];
            make_key(path, key).map_err(|error| wrong(error.to_string()))?;
            Ok(SealKey(key))
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Writes a key that only its owner can read, and sees that it stays.
fn make_key(path: &Path, key: [u64; 2]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{:016x}{:016x}", key[0], key[1])?;
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../examples/regions.toml");

    //= SPEC REGION-3 test
    #[test]
    fn a_key_is_made_once_and_never_in_place_of_one_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse_in(FILE, directory.path()).unwrap();
        let key = |config: &Config| match &spec(config, "east").map(|(spec, _)| spec.actors) {
            Ok(actors) => match &actors[0].1 {
                Party::Control(control) => Ok(control.key),
                _ => panic!("a control plane"),
            },
            Err(error) => Err(error.clone()),
        };
        let first = key(&config).unwrap();
        assert!(first == key(&config).unwrap(), "the same at the next start");
        let path = &config.regions[0].seal_key;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(path, "not a key").unwrap();
        assert!(matches!(key(&config), Err(RegionError::Key { .. })));
        fs::remove_file(path).unwrap();
        fs::write(&config.node("east").unwrap().storage, "facts").unwrap();
        let error = key(&config).err().unwrap();
        assert!(matches!(error, RegionError::KeyGone { .. }), "{error}");
        assert!(!path.exists(), "no key is made in its place");
    }

    #[test]
    fn a_node_is_what_its_region_says() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse_in(FILE, directory.path()).unwrap();
        let (east, _) = spec(&config, "east").unwrap();
        let Party::Control(control) = &east.actors[0].1 else { panic!("a control plane") };
        assert_eq!(control.others, [config.regions[1].index]);
        assert_eq!(control.servers.len(), 4);
        assert_eq!(control.networks.len(), 3);
        assert_eq!(control.safeguards, Safeguards::ALL);
        let (server, _) = spec(&config, "west-2").unwrap();
        let Party::Server(server) = &server.actors[0].1 else { panic!("a server") };
        assert_eq!(server.control, config.regions[1].control_plane);
        assert_eq!(server.remotes[&config.regions[0].index], config.regions[0].control_plane);
        let error = spec(&config, "x").err().unwrap().to_string();
        assert!(error.contains("east, east-1, east-2, west"), "{error}");
    }
}

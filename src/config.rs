//! The cluster file: which nodes there are, what they do, and the timing of each lease.
//!
//! ```toml
//! cluster = "orders"
//! insecure = true                 # datagrams are not sealed yet: loopback only, and said aloud
//!
//! [timing]                        # for every lease; each key is optional
//! lease = "15s"
//!
//! [[node]]
//! name = "a"
//! zone = "zone-1"
//! address = "127.0.0.1:7101"      # UDP
//! control = "127.0.0.1:7201"      # TCP, optional
//! storage = "data/a.redb"         # relative to this file
//! roles = ["host"]
//!
//! [[lease]]
//! name = "orders"
//! hosts = ["a", "b"]
//! store = "s"
//!
//! [lease.timing]                  # for this lease alone
//! poll = "500ms"
//! ```
//!
//! The whole file is checked at once: a [`Config`] can be run as it is, and whoever gets
//! [`ConfigErrors`] instead gets every problem with its place. Only what makes the text unreadable
//! as this format at all (syntax, an unknown key, a wrong type) is reported alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::duration::{self, DurationError};
use crate::lease::record::{NodeId, NodeSet};
use crate::lease::timing::{Checked, Timing, TimingErrors};

/// The longest cluster file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest name of a cluster, in characters.
pub const CLUSTER_NAME_CHARS_MAX: usize = 64;

/// The longest name of a node, a zone or a lease, in characters.
pub const NAME_CHARS_MAX: usize = 32;

/// The most leases that a cluster can have: an index has 16 bits.
pub const LEASES_MAX: usize = 1 << 16;

/// A checked cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name: 1 to [`CLUSTER_NAME_CHARS_MAX`] characters.
    pub cluster: String,
    /// Whether datagrams go unsealed. Always true as long as nothing can seal them.
    pub insecure: bool,
    /// The nodes; [`Node::id`] is the index.
    pub nodes: Vec<Node>,
    /// The leases; [`Lease::index`] is the index.
    pub leases: Vec<Lease>,
    /// What is allowed but unwise.
    pub warnings: Vec<ConfigWarning>,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its index in the file, below [`NodeId::LIMIT`].
    pub id: NodeId,
    /// Its name: 1 to [`NAME_CHARS_MAX`] of a-z, 0-9 and the hyphen; unique.
    pub name: String,
    /// Its availability zone; always there for a host.
    pub zone: Option<String>,
    /// Its UDP address: loopback, unique, port not 0, of one family with all others.
    pub address: SocketAddr,
    /// Its TCP control address: loopback, unique, port not 0.
    pub control: Option<SocketAddr>,
    /// The file of its durable storage; unique. A client needs one too: if it forgot its life it would be
    /// taken for its predecessor, and its new writes for repetitions of the old ones of the same name.
    pub storage: PathBuf,
    /// What it does.
    pub role: Role,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs for leases, and keeps a replica of what they protect.
    Host,
    /// Keeps lease records.
    Store,
    /// Writes through whoever holds a lease, and operates leases.
    Client,
}

impl Role {
    /// The word for it in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Store => "store",
            Self::Client => "client",
        }
    }
}

/// One lease of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its index in the file.
    pub index: u16,
    /// Its name: 1 to [`NAME_CHARS_MAX`] of a-z, 0-9 and the hyphen; unique.
    pub name: String,
    /// Who runs for it: at least two hosts, in the file's order, each once.
    pub hosts: Vec<NodeId>,
    /// Who keeps its record: a node with the role of a store.
    pub store: NodeId,
    /// Its timing: safe.
    pub timing: Checked,
}

impl Lease {
    /// Who runs for it, as a set.
    pub fn host_set(&self) -> NodeSet {
        self.hosts.iter().copied().collect()
    }
}

/// Something that is allowed but unwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigWarning {
    /// Hosts of one lease can be lost together (A2).
    #[error(
        "lease {lease:?}: hosts {} are all in zone {zone:?}, and are lost together with it; put \
         each host in a zone of its own",
        Names(.hosts)
    )]
    SharedZone {
        /// The lease.
        lease: String,
        /// The zone.
        zone: String,
        /// The names of its hosts there, two or more.
        hosts: Vec<String>,
    },
}

/// One problem of a cluster file: where it is, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The text is not in the format at all: syntax, an unknown key, a missing key, a wrong type.
    #[error("{reason}")]
    Format {
        /// What the parser says, with line and column; several lines of text.
        reason: String,
    },
    /// The cluster's name is empty, too long or unprintable.
    #[error(
        "cluster: {name:?} is no name; use 1 to {CLUSTER_NAME_CHARS_MAX} characters, none of them a \
         control character"
    )]
    ClusterName {
        /// The name.
        name: String,
    },
    /// Nothing can seal datagrams yet, and the operator has not said that it may be so.
    #[error(
        "insecure: sealed datagrams are not available yet; set `insecure = true` to run without, on \
         loopback addresses only"
    )]
    Sealed,
    /// There is nothing to run.
    #[error("there is no [[{section}]]; add at least one")]
    Missing {
        /// The section that is missing: `node` or `lease`.
        section: &'static str,
    },
    /// There are more nodes than a set can hold, or more leases than an index can tell apart.
    #[error("there are {have} [[{section}]] sections, more than {limit}; use several clusters")]
    TooMany {
        /// `node` or `lease`.
        section: &'static str,
        /// How many there are.
        have: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A node, zone or lease has a name that is empty, too long or has other characters.
    #[error("{place}: {key} {name:?} is no name; use 1 to {NAME_CHARS_MAX} of a-z, 0-9 and \"-\"")]
    Name {
        /// Where.
        place: Place,
        /// `name` or `zone`.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// Two nodes or two leases have one name.
    #[error("{place}: there is another one of that name; rename one of the two")]
    DuplicateName {
        /// The second of the two.
        place: Place,
    },
    /// A node has no role, more than one or an unknown one.
    #[error("{place}: roles = {have:?}; give exactly one of \"host\", \"store\" and \"client\"")]
    Roles {
        /// Where.
        place: Place,
        /// What is there.
        have: Vec<String>,
    },
    /// A node lacks a key that its role needs.
    #[error("{place}: a {} needs a {key}; add `{key} = \"...\"`", .role.name())]
    RoleNeeds {
        /// Where.
        place: Place,
        /// The node's role.
        role: Role,
        /// The missing key.
        key: &'static str,
    },
    /// An address does not parse.
    #[error(
        "{place}: {key} {text:?} is no address; write it as \"127.0.0.1:7101\" or \"[::1]:7101\""
    )]
    Address {
        /// Where.
        place: Place,
        /// `address` or `control`.
        key: &'static str,
        /// The text.
        text: String,
    },
    /// The port is 0, which would be another one at each start.
    #[error("{place}: {key} {address} has port 0; give the port by which others can find it")]
    PortZero {
        /// Where.
        place: Place,
        /// `address` or `control`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address can be reached from outside, with datagrams that anybody can forge.
    #[error(
        "{place}: address {address} is not a loopback address; sealed datagrams are not available \
         yet, so only loopback (127.0.0.0/8, ::1) is accepted"
    )]
    NotSealed {
        /// Where.
        place: Place,
        /// The address.
        address: SocketAddr,
    },
    /// The control address can be reached from outside.
    #[error(
        "{place}: control {address} is not a loopback address; whoever reaches it operates the node, \
         so only loopback (127.0.0.0/8, ::1) is accepted"
    )]
    ControlNotLoopback {
        /// Where.
        place: Place,
        /// The address.
        address: SocketAddr,
    },
    /// A node of one address family cannot send to one of the other.
    #[error(
        "{place}: address {address} and that of node {other:?} are of different families, IPv4 and \
         IPv6; a node has one socket, so use one family for all"
    )]
    Families {
        /// Where.
        place: Place,
        /// Its address.
        address: SocketAddr,
        /// The first node, which has an address of the other family.
        other: String,
    },
    /// Two nodes have one address.
    #[error("{place}: {key} {address} is also that of node {other:?}; give each node its own")]
    DuplicateAddress {
        /// The second of the two.
        place: Place,
        /// `address` or `control`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The first of the two.
        other: String,
    },
    /// The storage path is empty or names no file.
    #[error("{place}: storage {path:?} names no file; give the path of a file that may be created")]
    Storage {
        /// Where.
        place: Place,
        /// The path as written.
        path: String,
    },
    /// Two nodes have one storage file.
    #[error(
        "{place}: storage {path:?} is also that of node {other:?}; give each node its own file"
    )]
    DuplicateStorage {
        /// The second of the two.
        place: Place,
        /// The path as written.
        path: String,
        /// The first of the two.
        other: String,
    },
    /// One host cannot be a group (A1).
    #[error("{place}: {have} host(s); a lease needs at least two, or nobody can take over")]
    TooFewHosts {
        /// Where.
        place: Place,
        /// How many different ones there are.
        have: usize,
    },
    /// A node is listed twice as host.
    #[error("{place}: host {node:?} is listed more than once; list it once")]
    DuplicateHost {
        /// Where.
        place: Place,
        /// The node.
        node: String,
    },
    /// The store is one of the hosts, and would be lost together with it (A4).
    #[error(
        "{place}: store {node:?} is also a host of this lease; the record must survive every host, so \
         keep it on a node of its own"
    )]
    StoreIsHost {
        /// Where.
        place: Place,
        /// The node.
        node: String,
    },
    /// A lease names a node that is not there.
    #[error("{place}: {key} {node:?} is not a node of this file; the nodes are {}", Names(.known))]
    UnknownNode {
        /// Where.
        place: Place,
        /// `host` or `store`.
        key: &'static str,
        /// The name.
        node: String,
        /// The nodes that are there.
        known: Vec<String>,
    },
    /// A lease names a node of another role.
    #[error("{place}: {} {node:?} has the role {}; name a node whose role is {0}", .needed.name(), .have.name())]
    WrongRole {
        /// Where.
        place: Place,
        /// The node.
        node: String,
        /// Its role.
        have: Role,
        /// The role that is needed here.
        needed: Role,
    },
    /// A duration does not parse.
    #[error("{place}: {key}: {error}")]
    Duration {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: DurationError,
    },
    /// The timing is unsafe or senseless.
    #[error("{place}: timing: {errors}")]
    Timing {
        /// Which lease.
        place: Place,
        /// What is wrong with its numbers.
        errors: TimingErrors,
    },
}

/// A place in a cluster file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The section `[timing]`.
    Timing,
    /// A node, by name.
    Node(String),
    /// A lease, by name.
    Lease(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timing => f.write_str("[timing]"),
            Self::Node(name) => write!(f, "node {name:?}"),
            Self::Lease(name) => write!(f, "lease {name:?}"),
        }
    }
}

/// Names in a sentence: `"a", "b"`.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}{name:?}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Every problem of a cluster file: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
    timings: Vec<(String, Timing)>,
}

impl ConfigErrors {
    /// The problems, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }

    /// What is allowed but unwise, as far as the file could be understood.
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }

    /// The name and the timing of each lease whose numbers could be read, be they safe or not.
    pub fn timings(&self) -> &[(String, Timing)] {
        &self.timings
    }

    fn one(error: ConfigError) -> Self {
        Self { errors: vec![error], warnings: Vec::new(), timings: Vec::new() }
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads and checks a cluster file. Storage paths are taken relative to its directory.
    ///
    /// # Errors
    ///
    /// Every problem of the file, or the one that it cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let text = read(path).map_err(|reason| {
            ConfigErrors::one(ConfigError::Read { path: path.display().to_string(), reason })
        })?;
        Self::parse_in(&text, path.parent().unwrap_or_else(|| Path::new("")))
    }

    /// Checks the text of a cluster file. Storage paths are left relative.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_in(text, Path::new(""))
    }

    /// Checks the text of a cluster file that lies in this directory.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse_in(text: &str, directory: &Path) -> Result<Self, ConfigErrors> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| {
            ConfigErrors::one(ConfigError::Format { reason: error.to_string().trim_end().into() })
        })?;
        Reader::default().read(raw, directory)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of that id.
    pub fn node_by_id(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }

    /// The lease of that name.
    pub fn lease(&self, name: &str) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.name == name)
    }

    /// The lease of that index.
    pub fn lease_by_index(&self, index: u16) -> Option<&Lease> {
        self.leases.get(usize::from(index))
    }

    /// The leases that this node has a part in, as host or as store.
    pub fn leases_of(&self, id: NodeId) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.store == id || lease.hosts.contains(&id))
    }
}

/// The text of a file that is not too long.
fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;

    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes, so it is no cluster file"));
    }
    Ok(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cluster: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    timing: RawTiming,
    #[serde(default)]
    node: Vec<RawNode>,
    #[serde(default)]
    lease: Vec<RawLease>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: String,
    zone: Option<String>,
    address: String,
    control: Option<String>,
    storage: Option<String>,
    roles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLease {
    name: String,
    hosts: Vec<String>,
    store: String,
    #[serde(default)]
    timing: RawTiming,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTiming {
    lease: Option<String>,
    give_up: Option<String>,
    renew: Option<String>,
    retry: Option<String>,
    poll: Option<String>,
    jitter: Option<String>,
    hook: Option<String>,
    clock_error_ppm: Option<u32>,
}

/// Goes through a file once and notes all that it finds.
#[derive(Default)]
struct Reader {
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
    timings: Vec<(String, Timing)>,
    /// Names of nodes; a later one of the same name is refused.
    nodes: BTreeMap<String, Known>,
    /// UDP and control addresses, by key, with the name of the node.
    addresses: BTreeMap<(&'static str, IpAddr, u16), String>,
    storages: BTreeMap<PathBuf, String>,
    /// The first node with a UDP address, and whether that is IPv4.
    family: Option<(String, bool)>,
}

/// What leases need to know of a node. The role is unknown if it was refused.
struct Known {
    id: NodeId,
    role: Option<Role>,
    zone: Option<String>,
}

impl Reader {
    fn read(mut self, raw: RawConfig, directory: &Path) -> Result<Config, ConfigErrors> {
        let length = raw.cluster.chars().count();
        if length == 0 || length > CLUSTER_NAME_CHARS_MAX || raw.cluster.contains(char::is_control)
        {
            self.errors.push(ConfigError::ClusterName { name: raw.cluster.clone() });
        }
        if !raw.insecure {
            self.errors.push(ConfigError::Sealed);
        }
        let limit = usize::from(NodeId::LIMIT);
        self.count("node", raw.node.len(), limit);
        self.count("lease", raw.lease.len(), LEASES_MAX);
        let defaults = self.timing(&raw.timing, Timing::DEFAULT, &Place::Timing);

        let nodes: Vec<_> = (0..NodeId::LIMIT)
            .zip(raw.node)
            .filter_map(|(id, node)| self.node(NodeId(id), node, directory))
            .collect();
        let mut names = BTreeSet::new();
        let leases: Vec<_> = (0..=u16::MAX)
            .zip(raw.lease)
            .filter_map(|(index, lease)| self.lease(index, lease, defaults, &mut names))
            .collect();
        if self.errors.is_empty() {
            let Self { warnings, .. } = self;
            Ok(Config { cluster: raw.cluster, insecure: raw.insecure, nodes, leases, warnings })
        } else {
            let Self { errors, warnings, timings, .. } = self;
            Err(ConfigErrors { errors, warnings, timings })
        }
    }

    fn count(&mut self, section: &'static str, have: usize, limit: usize) {
        if have == 0 {
            self.errors.push(ConfigError::Missing { section });
        } else if have > limit {
            self.errors.push(ConfigError::TooMany { section, have, limit });
        }
    }

    /// The timing of a section over that of the section above it; `None` if a duration is refused.
    fn timing(&mut self, raw: &RawTiming, above: Timing, place: &Place) -> Option<Timing> {
        let known = self.errors.len();
        let mut length = |key, text: &Option<String>, above: Duration| {
            let Some(text) = text else { return above };
            duration::parse(text).unwrap_or_else(|error| {
                self.errors.push(ConfigError::Duration { place: place.clone(), key, error });
                above
            })
        };
        let timing = Timing {
            lease: length("lease", &raw.lease, above.lease),
            give_up: length("give_up", &raw.give_up, above.give_up),
            renew: length("renew", &raw.renew, above.renew),
            retry: length("retry", &raw.retry, above.retry),
            poll: length("poll", &raw.poll, above.poll),
            jitter: length("jitter", &raw.jitter, above.jitter),
            hook: length("hook", &raw.hook, above.hook),
            clock_error_ppm: raw.clock_error_ppm.unwrap_or(above.clock_error_ppm),
        };
        (self.errors.len() == known).then_some(timing)
    }

    fn name(&mut self, place: &Place, key: &'static str, name: &str) {
        let is_plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
            let (place, name) = (place.clone(), name.to_owned());
            self.errors.push(ConfigError::Name { place, key, name });
        }
    }

    fn node(&mut self, id: NodeId, raw: RawNode, directory: &Path) -> Option<Node> {
        let place = Place::Node(raw.name.clone());
        self.name(&place, "name", &raw.name);
        if let Some(zone) = &raw.zone {
            self.name(&place, "zone", zone);
        }
        let role = match raw.roles.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["host"] => Some(Role::Host),
            ["store"] => Some(Role::Store),
            ["client"] => Some(Role::Client),
            _ => {
                let place = place.clone();
                self.errors.push(ConfigError::Roles { place, have: raw.roles });
                None
            }
        };
        if let Some(role) = role {
            let needs = [
                ("zone", role == Role::Host && raw.zone.is_none()),
                ("storage", raw.storage.is_none()),
            ];
            for (key, is_missing) in needs {
                if is_missing {
                    self.errors.push(ConfigError::RoleNeeds { place: place.clone(), role, key });
                }
            }
        }
        let address = self.address(&raw.name, "address", &raw.address);
        let control = raw.control.and_then(|text| self.address(&raw.name, "control", &text));
        let storage = raw.storage.and_then(|text| self.storage(&raw.name, &text, directory));
        let known = Known { id, role, zone: raw.zone.clone() };
        if self.nodes.contains_key(&raw.name) {
            self.errors.push(ConfigError::DuplicateName { place });
        } else {
            self.nodes.insert(raw.name.clone(), known);
        }
        let (address, role, storage) = (address?, role?, storage?);
        Some(Node { id, name: raw.name, zone: raw.zone, address, control, storage, role })
    }

    fn address(&mut self, name: &str, key: &'static str, text: &str) -> Option<SocketAddr> {
        let place = Place::Node(name.to_owned());
        // An IPv4 address in IPv6 clothes is one that a peer's answer would not come from.
        let parsed = text.parse().ok().filter(|address: &SocketAddr| match address {
            SocketAddr::V4(_) => true,
            SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_none() && v6.scope_id() == 0,
        });
        let Some(address) = parsed else {
            self.errors.push(ConfigError::Address { place, key, text: text.to_owned() });
            return None;
        };
        if address.port() == 0 {
            let place = place.clone();
            self.errors.push(ConfigError::PortZero { place, key, address });
        }
        if !address.ip().is_loopback() {
            let place = place.clone();
            self.errors.push(match key {
                "control" => ConfigError::ControlNotLoopback { place, address },
                _ => ConfigError::NotSealed { place, address },
            });
        }
        if key == "address" {
            let (other, is_ipv4) =
                self.family.get_or_insert_with(|| (name.to_owned(), address.is_ipv4()));
            if *is_ipv4 != address.is_ipv4() {
                let (place, other) = (place.clone(), other.clone());
                self.errors.push(ConfigError::Families { place, address, other });
            }
        }
        let known = self.addresses.entry((key, address.ip(), address.port()));
        if let std::collections::btree_map::Entry::Occupied(other) = &known {
            let other = other.get().clone();
            self.errors.push(ConfigError::DuplicateAddress { place, key, address, other });
        }
        known.or_insert_with(|| name.to_owned());
        Some(address)
    }

    fn storage(&mut self, name: &str, text: &str, directory: &Path) -> Option<PathBuf> {
        let place = Place::Node(name.to_owned());
        let path = text.to_owned();
        if Path::new(text).file_name().is_none() || text.ends_with(std::path::is_separator) {
            self.errors.push(ConfigError::Storage { place, path });
            return None;
        }
        let full = directory.join(text);
        match self.storages.get(&plain(&full)) {
            Some(other) => {
                let other = other.clone();
                self.errors.push(ConfigError::DuplicateStorage { place, path, other });
            }
            None => {
                self.storages.insert(plain(&full), name.to_owned());
            }
        }
        Some(full)
    }

    fn lease(
        &mut self,
        index: u16,
        raw: RawLease,
        defaults: Option<Timing>,
        names: &mut BTreeSet<String>,
    ) -> Option<Lease> {
        let place = Place::Lease(raw.name.clone());
        self.name(&place, "name", &raw.name);
        if !names.insert(raw.name.clone()) {
            self.errors.push(ConfigError::DuplicateName { place: place.clone() });
        }
        let hosts = self.hosts(&place, &raw.hosts);
        //= SPEC LEASE-27
        let store = if raw.hosts.contains(&raw.store) {
            let (place, node) = (place.clone(), raw.store);
            self.errors.push(ConfigError::StoreIsHost { place, node });
            None
        } else {
            self.member(&place, &raw.store, Role::Store)
        };
        self.zones(&raw.name, &raw.hosts);
        // A duration that is refused in one section must not hide those of the other.
        let timing = self.timing(&raw.timing, defaults.unwrap_or(Timing::DEFAULT), &place);
        let timing = timing.filter(|_| defaults.is_some())?;
        self.timings.push((raw.name.clone(), timing));
        let timing = match timing.validate() {
            Ok(timing) => Some(timing),
            Err(errors) => {
                self.errors.push(ConfigError::Timing { place, errors });
                None
            }
        };
        Some(Lease { index, name: raw.name, hosts, store: store?, timing: timing? })
    }

    /// The hosts of a lease, each once.
    //= SPEC LEASE-25
    fn hosts(&mut self, place: &Place, names: &[String]) -> Vec<NodeId> {
        let mut seen = BTreeSet::new();
        let mut hosts = Vec::new();
        for name in names {
            if !seen.insert(name) {
                let (place, node) = (place.clone(), name.clone());
                self.errors.push(ConfigError::DuplicateHost { place, node });
                continue;
            }
            hosts.extend(self.member(place, name, Role::Host));
        }
        if seen.len() < 2 {
            let place = place.clone();
            self.errors.push(ConfigError::TooFewHosts { place, have: seen.len() });
        }
        hosts
    }

    /// The node of that name, which must have that role.
    //= SPEC LEASE-27
    fn member(&mut self, place: &Place, name: &str, needed: Role) -> Option<NodeId> {
        let (place, node) = (place.clone(), name.to_owned());
        let Some(known) = self.nodes.get(name) else {
            let known = self.nodes.keys().cloned().collect();
            let key = needed.name();
            self.errors.push(ConfigError::UnknownNode { place, key, node, known });
            return None;
        };
        // A role that was refused has been reported where it is given.
        let have = known.role?;
        if have != needed {
            self.errors.push(ConfigError::WrongRole { place, node, have, needed });
            return None;
        }
        Some(known.id)
    }

    /// Warns of hosts that share a zone (A2).
    //= SPEC LEASE-26
    fn zones(&mut self, lease: &str, hosts: &[String]) {
        let mut zones: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for host in hosts {
            if let Some(zone) = self.nodes.get(host).and_then(|known| known.zone.as_deref()) {
                zones.entry(zone).or_default().insert(host);
            }
        }
        for (zone, hosts) in zones.into_iter().filter(|(_, hosts)| hosts.len() > 1) {
            self.warnings.push(ConfigWarning::SharedZone {
                lease: lease.to_owned(),
                zone: zone.to_owned(),
                hosts: hosts.into_iter().cloned().collect(),
            });
        }
    }
}

/// The path without `.` and `..`, for comparing alone: links are not followed.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "orders"
insecure = true

[timing]
lease = "15s"
poll = "1s"

[[node]]
name = "a"
zone = "zone-1"
address = "127.0.0.1:7101"
control = "127.0.0.1:7201"
storage = "data/a.redb"
roles = ["host"]

[[node]]
name = "b"
zone = "zone-2"
address = "127.0.0.1:7102"
control = "127.0.0.1:7202"
storage = "data/b.redb"
roles = ["host"]

[[node]]
name = "s"
address = "127.0.0.1:7103"
storage = "data/s.redb"
roles = ["store"]

[[node]]
name = "c"
address = "127.0.0.1:7104"
storage = "data/c.redb"
roles = ["client"]

[[lease]]
name = "orders"
hosts = ["a", "b"]
store = "s"

[[lease]]
name = "stock"
hosts = ["b", "a"]
store = "s"

[lease.timing]
poll = "500ms"
clock_error_ppm = 100
"#;

    /// The good file with one text replaced by another.
    fn with(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?} is not in the file");
        GOOD.replacen(from, to, 1)
    }

    /// The problems of the good file with one text replaced, as an operator reads them.
    fn refused(from: &str, to: &str) -> Vec<String> {
        problems(&with(from, to))
    }

    fn problems(text: &str) -> Vec<String> {
        Config::parse(text).expect_err("must be refused").iter().map(ToString::to_string).collect()
    }

    fn assert_one(problems: &[String], place: &str, what: &str) {
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with(place) && problems[0].contains(what), "{problems:#?}");
    }

    #[test]
    fn a_good_file_is_read_whole() {
        let config = Config::parse(GOOD).expect("good");
        assert_eq!((config.cluster.as_str(), config.insecure), ("orders", true));
        assert_eq!(config.warnings, []);
        let names: Vec<_> = config.nodes.iter().map(|node| (node.id.0, &*node.name)).collect();
        assert_eq!(names, [(0, "a"), (1, "b"), (2, "s"), (3, "c")]);
        let a = config.node("a").expect("there");
        assert_eq!(a.address, "127.0.0.1:7101".parse().expect("address"));
        assert_eq!(a.control, Some("127.0.0.1:7201".parse().expect("address")));
        assert_eq!(a.storage, Path::new("data/a.redb"));
        assert_eq!((a.zone.as_deref(), a.role), (Some("zone-1"), Role::Host));
        assert_eq!(config.node_by_id(NodeId(3)).map(|node| node.role), Some(Role::Client));
        assert_eq!(config.node_by_id(NodeId(4)), None);

        let orders = config.lease("orders").expect("there");
        assert_eq!((orders.index, orders.store), (0, NodeId(2)));
        assert_eq!(orders.timing.get(), Timing::DEFAULT);
        let stock = config.lease_by_index(1).expect("there");
        assert_eq!(stock.hosts, [NodeId(1), NodeId(0)]);
        assert_eq!(stock.host_set(), orders.host_set());
        assert_eq!(
            (stock.timing.poll, stock.timing.clock_error_ppm),
            (Duration::from_millis(500), 100)
        );
        assert_eq!(config.leases_of(NodeId(2)).count(), 2);
        assert_eq!(config.leases_of(NodeId(3)).count(), 0);
    }

    #[test]
    fn timing_may_be_left_out_and_ipv6_used() {
        let text =
            with("[timing]\nlease = \"15s\"\npoll = \"1s\"\n", "").replace("127.0.0.1", "[::1]");
        let config = Config::parse(&text).expect("good");
        assert_eq!(config.leases[0].timing.get(), Timing::DEFAULT);
        assert!(config.nodes.iter().all(|node| node.address.is_ipv6()));
    }

    #[test]
    fn storage_is_relative_to_the_file() {
        let config = Config::parse_in(GOOD, Path::new("etc/tenure")).expect("good");
        assert_eq!(config.nodes[2].storage, Path::new("etc/tenure/data/s.redb"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        std::fs::write(&path, GOOD).expect("written");
        let config = Config::load(&path).expect("good");
        assert_eq!(config.nodes[0].storage, directory.path().join("data/a.redb"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        let errors = Config::load(&path).expect_err("not there");
        assert!(errors.to_string().contains("cluster.toml: "), "{errors}");
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).expect("written");
        let errors = Config::load(&path).expect_err("too long");
        assert!(errors.to_string().contains("no cluster file"), "{errors}");
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        for (from, to) in [
            ("insecure = true", "insecure = true\nsecure = 1"),
            ("poll = \"1s\"", "pol = \"1s\""),
            ("zone = \"zone-1\"", "zonne = \"zone-1\""),
            ("store = \"s\"", "stores = \"s\""),
            ("poll = \"500ms\"", "pause = \"500ms\""),
        ] {
            let problems = refused(from, to);
            assert_one(&problems, "TOML parse error at line", "unknown field");
        }
        assert_one(&refused("lease = \"15s\"", "lease = 15"), "TOML parse error", "invalid type");
        assert_one(&refused("cluster = \"orders\"", ""), "TOML parse error", "missing field");
        assert_one(&refused("roles = [\"store\"]", ""), "TOML parse error", "missing field");
        assert_one(&refused("clock_error_ppm = 100", "clock_error_ppm = -1"), "TOML", "integer");
    }

    #[test]
    fn the_clusters_name_is_bounded() {
        for name in [String::new(), "x".repeat(65), "a\\nb".into()] {
            let problems = refused("cluster = \"orders\"", &format!("cluster = \"{name}\""));
            assert_one(&problems, "cluster: ", "is no name");
        }
        let name = "é".repeat(64);
        assert!(
            Config::parse(&with("cluster = \"orders\"", &format!("cluster = \"{name}\""))).is_ok()
        );
    }

    #[test]
    fn running_unsealed_must_be_said_aloud() {
        for to in ["", "insecure = false"] {
            assert_one(&refused("insecure = true", to), "insecure: ", "set `insecure = true`");
        }
    }

    #[test]
    fn names_of_nodes_zones_and_leases_are_plain() {
        for bad in ["", "A", "a b", "ä", "a_b", &"x".repeat(33)] {
            let problems = refused("name = \"c\"", &format!("name = \"{bad}\""));
            assert_one(&problems, &format!("node {bad:?}: name"), "is no name");
            let problems = refused("\"zone-2\"", &format!("\"{bad}\""));
            assert_one(&problems, "node \"b\": zone", "is no name");
            let problems = refused("name = \"stock\"", &format!("name = \"{bad}\""));
            assert_one(&problems, &format!("lease {bad:?}: name"), "is no name");
        }
        assert!(
            Config::parse(&with("name = \"c\"", &format!("name = \"{}\"", "x".repeat(32)))).is_ok()
        );
    }

    #[test]
    fn duplicate_names_are_refused() {
        assert_one(
            &refused("name = \"c\"", "name = \"a\""),
            "node \"a\"",
            "another one of that name",
        );
        let problems = refused("name = \"stock\"", "name = \"orders\"");
        assert_one(&problems, "lease \"orders\"", "another one of that name");
    }

    #[test]
    fn a_node_has_exactly_one_role() {
        for roles in ["[]", "[\"client\", \"store\"]", "[\"client\", \"client\"]", "[\"server\"]"] {
            let problems = refused("roles = [\"client\"]", &format!("roles = {roles}"));
            assert_one(&problems, "node \"c\": roles = ", "exactly one");
        }
    }

    #[test]
    fn hosts_need_a_zone_and_every_node_needs_storage() {
        assert_one(&refused("zone = \"zone-1\"\n", ""), "node \"a\": a host", "needs a zone");
        let problems = refused("storage = \"data/a.redb\"\n", "");
        assert_one(&problems, "node \"a\": a host", "needs a storage");
        let problems = refused("storage = \"data/s.redb\"\n", "");
        assert_one(&problems, "node \"s\": a store", "needs a storage");
        let problems = refused("storage = \"data/c.redb\"\n", "");
        assert_one(&problems, "node \"c\": a client", "needs a storage");
    }

    #[test]
    fn addresses_must_parse() {
        for bad in [
            "",
            "127.0.0.1",
            "localhost:7104",
            "::1:7104",
            "127.0.0.1:65536",
            "[::ffff:127.0.0.1]:7104",
            "[::1%1]:7104",
        ] {
            let problems = refused("127.0.0.1:7104", bad);
            assert_one(&problems, "node \"c\": address", "is no address");
            let problems = refused("127.0.0.1:7202", bad);
            assert_one(&problems, "node \"b\": control", "is no address");
        }
    }

    #[test]
    fn port_zero_is_refused() {
        assert_one(&refused("127.0.0.1:7104", "127.0.0.1:0"), "node \"c\": address", "port 0");
        assert_one(&refused("127.0.0.1:7202", "127.0.0.1:0"), "node \"b\": control", "port 0");
    }

    #[test]
    fn without_sealing_only_loopback_is_accepted() {
        for bad in ["192.0.2.1:7104", "0.0.0.0:7104"] {
            let problems = refused("127.0.0.1:7104", bad);
            assert_one(&problems, "node \"c\": address", "sealed datagrams are not available yet");
            let problems = refused("127.0.0.1:7202", bad);
            assert_one(&problems, "node \"b\": control", "only loopback");
        }
        assert!(Config::parse(&with("127.0.0.1:7104", "127.0.0.99:7104")).is_ok());
    }

    #[test]
    fn one_socket_reaches_one_family() {
        let problems = refused("127.0.0.1:7104", "[::1]:7104");
        assert_one(&problems, "node \"c\": address [::1]:7104", "different families");
    }

    #[test]
    fn duplicate_addresses_are_refused() {
        let problems = refused("127.0.0.1:7104", "127.0.0.1:7101");
        assert_one(&problems, "node \"c\": address", "also that of node \"a\"");
        let problems = refused("127.0.0.1:7202", "127.0.0.1:7201");
        assert_one(&problems, "node \"b\": control", "also that of node \"a\"");
        // UDP and TCP ports are apart.
        assert!(Config::parse(&with("127.0.0.1:7202", "127.0.0.1:7102")).is_ok());
    }

    #[test]
    fn duplicate_storage_is_refused_however_it_is_written() {
        for other in ["data/a.redb", "./data/a.redb", "data/../data/./a.redb"] {
            let problems = refused("data/b.redb", other);
            assert_one(&problems, "node \"b\": storage", "also that of node \"a\"");
        }
        for bad in ["", "data/", "..", "/"] {
            assert_one(&refused("data/b.redb", bad), "node \"b\": storage", "names no file");
        }
    }

    //= SPEC LEASE-25 test
    #[test]
    fn a_lease_needs_two_different_hosts() {
        let hosts = "hosts = [\"a\", \"b\"]";
        assert_one(&refused(hosts, "hosts = [\"a\"]"), "lease \"orders\": 1 host", "at least two");
        assert_one(&refused(hosts, "hosts = []"), "lease \"orders\": 0 host", "at least two");
        let problems = refused(hosts, "hosts = [\"a\", \"b\", \"a\"]");
        assert_one(&problems, "lease \"orders\": host \"a\"", "more than once");
        let problems = refused(hosts, "hosts = [\"a\", \"a\"]");
        assert_eq!(problems.len(), 2, "{problems:#?}");
    }

    //= SPEC LEASE-27 test
    #[test]
    fn a_lease_names_nodes_that_are_there_in_their_role() {
        let hosts = "hosts = [\"a\", \"b\"]";
        let problems = refused(hosts, "hosts = [\"a\", \"x\"]");
        assert_one(&problems, "lease \"orders\": host \"x\"", "is not a node of this file");
        assert!(problems[0].ends_with(r#"the nodes are "a", "b", "c", "s""#), "{problems:?}");
        let problems = refused("store = \"s\"", "store = \"x\"");
        assert_one(&problems, "lease \"orders\": store \"x\"", "is not a node of this file");
        let problems = refused(hosts, "hosts = [\"a\", \"b\", \"c\"]");
        assert_one(&problems, "lease \"orders\": host \"c\" has the role client", "role is host");
        let problems = refused("store = \"s\"", "store = \"c\"");
        assert_one(&problems, "lease \"orders\": store \"c\" has the role client", "role is store");
    }

    //= SPEC LEASE-27 test
    #[test]
    fn the_store_is_not_a_host() {
        let problems = refused("store = \"s\"", "store = \"a\"");
        assert_one(&problems, "lease \"orders\": store \"a\"", "also a host");
    }

    #[test]
    fn sections_are_bounded() {
        let mut text = GOOD.to_owned();
        for i in 4..64 {
            text += &format!(
                "\n[[node]]\nname = \"n{i}\"\naddress = \"127.0.0.2:{}\"\nstorage = \"n{i}\"\n\
                 roles = [\"client\"]\n",
                7000 + i
            );
        }
        assert!(Config::parse(&text).is_ok());
        text += "\n[[node]]\nname = \"n64\"\naddress = \"127.0.0.2:9\"\nstorage = \"n64\"\n\
                 roles = [\"client\"]\n";
        assert_one(&problems(&text), "there are 65 [[node]]", "more than 64");
        let none = problems("cluster = \"x\"\ninsecure = true");
        assert_eq!(
            none,
            ["there is no [[node]]; add at least one", "there is no [[lease]]; add at least one"]
        );
    }

    #[test]
    fn durations_are_refused_where_they_stand() {
        let problems = refused("lease = \"15s\"", "lease = \"15\"");
        assert_one(&problems, "[timing]: lease: ", "is no unit");
        let problems = refused("poll = \"500ms\"", "poll = \"-1s\"");
        assert_one(&problems, "lease \"stock\": poll: ", "a number is expected");
    }

    //= SPEC TIME-2 test
    #[test]
    fn unsafe_timing_is_refused_with_its_numbers() {
        let text = with("poll = \"500ms\"", "lease = \"12s\"");
        let errors = Config::parse(&text).expect_err("unsafe");
        assert_one(
            &problems(&text),
            "lease \"stock\": timing: not safe: give_up 10s, hook 2s and clocks off by 100 ppm",
            "need a lease of at least 12.002200201s, and it is 12s",
        );
        let names: Vec<_> = errors.timings().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["orders", "stock"]);
        // Defaults that are unsafe are so for each lease that does not mend them.
        assert_eq!(refused("lease = \"15s\"", "lease = \"12s\"").len(), 2);
        let problems = refused("poll = \"500ms\"", "renew = \"9s\"\njitter = \"3s\"");
        assert_one(&problems, "lease \"stock\": timing: renew 9s + 2 * retry 1s", "; jitter 3s");
    }

    //= SPEC LEASE-26 test
    #[test]
    fn two_hosts_in_one_zone_are_reported_but_accepted() {
        let config = Config::parse(&with("zone-2", "zone-1")).expect("accepted");
        let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with(r#"lease "orders": hosts "a", "b" are all in zone "zone-1""#)
        );
        // A warning is not lost because of an error elsewhere.
        let text = with("zone-2", "zone-1").replace("insecure = true", "");
        assert_eq!(Config::parse(&text).expect_err("unsealed").warnings().len(), 2);
    }

    #[test]
    fn nothing_in_the_file_can_steer_the_terminal() {
        let problems =
            refused("name = \"stock\"\nhosts = [\"b\"", "name = \"\\u001b\"\nhosts = [\"\\u001b\"");
        assert!(!problems.is_empty() && problems.iter().all(|text| !text.contains('\x1b')));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let text = with("zone = \"zone-1\"\n", "")
            .replace("127.0.0.1:7102", "127.0.0.1:0")
            .replace("store = \"s\"", "store = \"x\"")
            .replace("poll = \"500ms\"", "poll = \"\"");
        let problems = problems(&text);
        assert_eq!(problems.len(), 5, "{problems:#?}");
    }
}

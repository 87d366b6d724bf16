//! The cluster file: which nodes there are, what they do, the timing of each lease, and the regions.
//!
//! ```toml
//! cluster = "orders"
//! insecure = true                 # datagrams are not sealed: loopback only, and said aloud. Or give each node a key
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
//! How nodes get keys, so that they may talk over networks, is at [`NodeKey`]. A file has leases, or regions ([`Region`]), or both. What a lease protects outside of tenure, a database for
//! instance, is told in `[[work]]`: see [`Work`].
//!
//! The whole file is checked at once: a [`Config`] can be run as it is, and whoever gets
//! [`ConfigErrors`] instead gets every problem with its place. Only what makes the text unreadable
//! as this format at all (syntax, an unknown key, a wrong type) is reported alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::duration::{self, DurationError};
use crate::lease::record::{NodeId, NodeSet};
use crate::lease::timing::{Checked, Timing, TimingErrors};
use crate::wire::seal::{PublicKey, without_secrets};

mod error;
mod keys;
mod region;
mod work;

pub use error::{ConfigError, ConfigErrors, ConfigWarning, Place};
pub(crate) use keys::date_text;
pub use keys::{KEYS_MAX, NodeKey, NodeKeyError, WARN_BEFORE};
use region::RawRegion;
pub use region::{Carrier, REGIONS_MAX, Region};
pub use work::{How, StopHook, Work, WorkError};

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
    /// Whether datagrams go unsealed. Exactly then no node has a key.
    pub insecure: bool,
    /// The nodes; [`Node::id`] is the index.
    pub nodes: Vec<Node>,
    /// The leases; [`Lease::index`] is the index.
    pub leases: Vec<Lease>,
    /// The regions: none, or at least two; [`Region::index`] is the index.
    pub regions: Vec<Region>,
    /// What hosts do beside their part in the election.
    pub works: Vec<Work>,
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
    /// Its UDP address: unique, port not 0, of one family with all others; loopback if datagrams are not sealed.
    pub address: SocketAddr,
    /// Its TCP control address: loopback, unique, port not 0.
    pub control: Option<SocketAddr>,
    /// The file of its durable storage; unique. A client needs one too: if it forgot its life it would be
    /// taken for its predecessor, and its new writes for repetitions of the old ones of the same name.
    pub storage: PathBuf,
    /// What it does.
    pub role: Role,
    /// Its keys, at most [`KEYS_MAX`]; none if datagrams are not sealed.
    pub keys: Vec<NodeKey>,
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
    /// Answers the customers of a region, and keeps its facts and its work log.
    ControlPlane,
    /// Carries the work of a region to other regions.
    IrcServer,
}

impl Role {
    /// The word for it in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Store => "store",
            Self::Client => "client",
            Self::ControlPlane => "control-plane",
            Self::IrcServer => "irc-server",
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
            // It repeats the line that it is about, in which a secret may be that ought to be in a file of its own.
            let reason = without_secrets(error.to_string().trim_end());
            ConfigErrors::one(ConfigError::Format { reason })
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

    /// What this host does beside its part in the election of this lease.
    pub fn work(&self, node: NodeId, lease: u16) -> Option<&Work> {
        self.works.iter().find(|work| work.node == node && work.lease == lease)
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
    #[serde(default)]
    region: Vec<RawRegion>,
    #[serde(default)]
    work: Vec<work::RawWork>,
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
    #[serde(default)]
    key: Vec<keys::RawKey>,
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
    /// Whether any node has a key.
    has_keys: bool,
    /// Whose each key is.
    keys: BTreeMap<PublicKey, String>,
    /// The region that each node of a region is in.
    regional: BTreeMap<String, String>,
}

/// What leases and regions need to know of a node. The role is unknown if it was refused.
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
        self.sealing(&raw);
        let limit = usize::from(NodeId::LIMIT);
        self.count("node", raw.node.len(), 1, limit);
        let leases_min = usize::from(raw.region.is_empty());
        self.count("lease", raw.lease.len(), leases_min, LEASES_MAX);
        self.count("region", raw.region.len(), 0, REGIONS_MAX);
        if raw.region.len() == 1 {
            self.errors.push(ConfigError::OneRegion);
        }
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
        let mut works = Vec::new();
        for work in raw.work {
            works.extend(self.work(work, &nodes, &leases, &names, &works, directory));
        }
        let mut names = BTreeSet::new();
        let regions: Vec<_> = (0..=u16::MAX)
            .zip(raw.region)
            .filter_map(|(index, region)| self.region(index, region, &mut names, directory))
            .collect();
        self.all_have_regions();
        if self.errors.is_empty() {
            let (Self { warnings, .. }, cluster, insecure) = (self, raw.cluster, raw.insecure);
            Ok(Config { cluster, insecure, nodes, leases, regions, works, warnings })
        } else {
            let Self { errors, warnings, timings, .. } = self;
            Err(ConfigErrors { errors, warnings, timings })
        }
    }

    fn count(&mut self, section: &'static str, have: usize, least: usize, limit: usize) {
        if have < least {
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
            ["control-plane"] => Some(Role::ControlPlane),
            ["irc-server"] => Some(Role::IrcServer),
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
                ("control", role == Role::ControlPlane && raw.control.is_none()),
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
        let keys = self.keys(&raw.name, &raw.key, directory);
        let known = Known { id, role, zone: raw.zone.clone() };
        if self.nodes.contains_key(&raw.name) {
            self.errors.push(ConfigError::DuplicateName { place });
        } else {
            self.nodes.insert(raw.name.clone(), known);
        }
        let (address, role, storage) = (address?, role?, storage?);
        Some(Node { id, name: raw.name, zone: raw.zone, address, control, storage, role, keys })
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
        let place_again = place.clone();
        if key == "control" {
            if !address.ip().is_loopback() {
                self.errors.push(ConfigError::ControlNotLoopback { place: place_again, address });
            }
        } else if !is_of_one_node(address.ip()) {
            self.errors.push(ConfigError::NotOfOneNode { place: place_again, address });
        } else if !address.ip().is_loopback() && !self.has_keys {
            self.errors.push(ConfigError::NotSealed { place: place_again, address });
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

    fn work(
        &mut self,
        raw: work::RawWork,
        nodes: &[Node],
        leases: &[Lease],
        names: &BTreeSet<String>,
        known: &[Work],
        directory: &Path,
    ) -> Option<Work> {
        let place = Place::Work(raw.node.clone(), raw.lease.clone());
        if !names.contains(&raw.lease) {
            self.errors.push(ConfigError::Work { place, error: WorkError::UnknownLease });
            return None;
        }
        if !self.nodes.contains_key(&raw.node) {
            let error = WorkError::NotAHost(raw.node);
            self.errors.push(ConfigError::Work { place, error });
            return None;
        }
        // What is wrong with node or lease has been reported where they are.
        let node = nodes.iter().find(|node| node.name == raw.node)?;
        let lease = leases.iter().find(|lease| lease.name == raw.lease)?;
        match raw.check(node, lease, known, directory) {
            Ok(work) => Some(work),
            Err(error) => {
                self.errors.push(ConfigError::Work { place, error });
                None
            }
        }
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

/// Whether others can send to it and reach one node.
fn is_of_one_node(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
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
mod tests;

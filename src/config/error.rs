//! What may be wrong with a cluster file, and what to do about it.

use std::fmt;
use std::net::SocketAddr;

use super::*;
use crate::wire::seal::without_secrets;

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
    /// No node has a key, and the operator has not said that datagrams may go unsealed.
    #[error(
        "insecure: no node has a key, so datagrams would not be sealed; make a key for each with `tenure \
         keys new` and list it in [[node.key]], or set `insecure = true` to run without, on loopback \
         addresses only"
    )]
    Unsealed,
    /// Nodes have keys, and the file says that nothing is sealed.
    #[error(
        "insecure: nodes have keys, so datagrams are sealed; leave `insecure = true` out, or all keys"
    )]
    InsecureWithKeys,
    /// Others have keys, and this node has none.
    #[error(
        "{place}: it has no key, and others have; make one with `tenure keys new` and list it in [[node.key]]"
    )]
    NoKey {
        /// Which node.
        place: Place,
    },
    /// A node has more keys than its peers should try.
    #[error("{place}: {have} keys, more than {KEYS_MAX}; leave out those that have run out")]
    TooManyKeys {
        /// Which node.
        place: Place,
        /// How many it has.
        have: usize,
    },
    /// A key cannot be used.
    #[error("{place}: key {number}: {error}")]
    Key {
        /// Which node.
        place: Place,
        /// Which of its keys, from 1.
        number: usize,
        /// What is wrong with it.
        error: NodeKeyError,
    },
    /// There is nothing to run. Regions will do without leases.
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
    #[error(
        "{place}: roles = {have:?}; give exactly one of \"host\", \"store\", \"client\", \
         \"control-plane\" and \"irc-server\""
    )]
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
        "{place}: address {address} is not a loopback address; datagrams leave a machine only sealed, so \
         give every node a key (`tenure keys new`), or use 127.0.0.0/8 or ::1"
    )]
    NotSealed {
        /// Where.
        place: Place,
        /// The address.
        address: SocketAddr,
    },
    /// The address is of no node, or of many.
    #[error(
        "{place}: address {address} is not the address of one node; give the one that others send to"
    )]
    NotOfOneNode {
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
    /// One region has nobody to work with.
    #[error("there is one [[region]]; add another, or leave it out")]
    OneRegion,
    /// A region has nobody who carries its work.
    #[error("{place}: there are no servers; list at least one irc-server, better two")]
    NoServers {
        /// Which region.
        place: Place,
    },
    /// A node serves two regions.
    #[error("{place}: node {node:?} is in region {other:?} too; give each region nodes of its own")]
    NodeOfTwo {
        /// The second of the two.
        place: Place,
        /// The node.
        node: String,
        /// The first of the two.
        other: String,
    },
    /// A node of a region's role is in none.
    #[error("{place}: a {} works for one region, and no [[region]] names this one; add it there", .role.name())]
    NoRegion {
        /// Which node.
        place: Place,
        /// Its role.
        role: Role,
    },
    /// The path of a key is empty or names no file.
    #[error("{place}: seal_key {path:?} names no file; give the path of a file")]
    SealKey {
        /// Which region.
        place: Place,
        /// The path as written.
        path: String,
    },
    /// The key would lie in somebody's storage, or is another region's.
    #[error(
        "{place}: seal_key {path:?} is a file of {other} already; a key is one region's alone, and \
         must not go back with a backup of its storage: name another file"
    )]
    SealKeyTaken {
        /// Which region.
        place: Place,
        /// The path as written.
        path: String,
        /// Whose it is.
        other: String,
    },
    /// The addresses of a network do not parse.
    #[error(
        "{place}: network {network}: cidr {text:?} is no block of IPv4 addresses; write it as \
         \"10.1.0.0/16\", with nothing behind the prefix"
    )]
    Cidr {
        /// Which region.
        place: Place,
        /// The network's number.
        network: u32,
        /// The text.
        text: String,
    },
    /// Two networks of a region have one number.
    #[error("{place}: network {network} is there twice; give each an id of its own")]
    DuplicateNetwork {
        /// Which region.
        place: Place,
        /// The number.
        network: u32,
    },
    /// The numbers of a region do not go together.
    #[error("{place}: {reason}")]
    RegionNumber {
        /// Which region.
        place: Place,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// What a host does beside the election cannot be done, or not ended in time.
    #[error("{place}: {error}")]
    Work {
        /// Which host and lease.
        place: Place,
        /// What is wrong with it.
        error: WorkError,
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
    /// A region, by name.
    Region(String),
    /// The work of a node under a lease, by their names.
    Work(String, String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timing => f.write_str("[timing]"),
            Self::Node(name) => write!(f, "node {name:?}"),
            Self::Lease(name) => write!(f, "lease {name:?}"),
            Self::Region(name) => write!(f, "region {name:?}"),
            Self::Work(node, lease) => write!(f, "work of {node:?} under {lease:?}"),
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
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigWarning>,
    pub(super) timings: Vec<(String, Timing)>,
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

    pub(super) fn one(error: ConfigError) -> Self {
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
            let text = without_secrets(&error.to_string());
            write!(f, "{}{text}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

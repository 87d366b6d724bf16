//! From a cluster file and a name to a node that can be started.

use super::keys::{self, KeyFileError};
use super::{Bind, Spec};
use crate::config::{Config, Lease, Node, Role};
use crate::lease::Member;
use crate::lease::client::Client;
use crate::lease::elector::Elector;
use crate::lease::host::Host;
use crate::lease::record::NodeId;
use crate::lease::replica::Replica;
use crate::lease::safeguards::Safeguards;
use crate::lease::store::LeaseStore;

/// After how many unanswered resends a primary wants a replica out of the in-sync set.
const PATIENCE: u8 = 3;

/// Why a node of this name cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is no node of that name.
    #[error("{name:?} is not a node of this cluster; the nodes are {}", .known.join(", "))]
    UnknownNode {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The node works for a region, and this program runs leases alone.
    #[error("{name:?} is a {}, which has no part in leases: run it with `tenure node`", .role.name())]
    OfRegion {
        /// The name.
        name: String,
        /// What it is.
        role: Role,
    },
    /// Its keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
}

/// What the node of this name is to be: an actor for each lease in which it has a part.
///
/// Everything else is as the file says. The hooks end a term's work at once, because the table that
/// tenure keeps stops in the very step that ends the term; a node that guards something else puts
/// its own stop hook in [`Spec::hooks`].
///
/// # Errors
///
/// [`LaunchError`]; nothing has been opened.
pub fn spec(config: &Config, name: &str) -> Result<Spec<Member>, LaunchError> {
    let Some(node) = config.node(name) else {
        let known = config.nodes.iter().map(|node| node.name.clone()).collect();
        return Err(LaunchError::UnknownNode { name: name.to_owned(), known });
    };
    if let Role::ControlPlane | Role::IrcServer = node.role {
        return Err(LaunchError::OfRegion { name: name.to_owned(), role: node.role });
    }
    let peers = config.nodes.iter().map(|node| node.address).collect();
    let mut spec = Spec::new(config.cluster.clone(), node.id, Bind::To(node.address), peers);
    spec.storage = Some(node.storage.clone());
    spec.seal = keys::seal(config, node)?;
    spec.leases = leases_of(config, node).map(|it| (it.index, it.name.clone())).collect();
    spec.actors = config
        .leases
        .iter()
        .filter_map(|lease| Some((lease.index, member(node, lease)?)))
        .collect();
    Ok(spec)
}

/// The leases in which this node has an actor: a client has one in every lease.
pub fn leases_of<'a>(config: &'a Config, node: &'a Node) -> impl Iterator<Item = &'a Lease> {
    config.leases.iter().filter(|lease| has_part(node, lease))
}

fn has_part(node: &Node, lease: &Lease) -> bool {
    match node.role {
        Role::Host => lease.hosts.contains(&node.id),
        Role::Store => lease.store == node.id,
        Role::Client => true,
        Role::ControlPlane | Role::IrcServer => false,
    }
}

fn member(node: &Node, lease: &Lease) -> Option<Member> {
    if !has_part(node, lease) {
        return None;
    }
    match node.role {
        Role::Host => Some(host(node.id, lease)),
        Role::Store => {
            let (hosts, hints) = (lease.host_set(), lease.hosts.clone());
            Some(Member::Store(LeaseStore { hosts, hints, safeguards: Safeguards::ALL }))
        }
        Role::Client => Some(Member::Client(Client {
            me: node.id,
            hosts: lease.hosts.clone(),
            retry: lease.timing.retry,
            script: Vec::new(),
        })),
        Role::ControlPlane | Role::IrcServer => None,
    }
}

fn host(me: NodeId, lease: &Lease) -> Member {
    let (hosts, timing) = (lease.host_set(), lease.timing.get());
    let safeguards = Safeguards::ALL;
    Member::Host(Host {
        elector: Elector { me, store: lease.store, hosts, timing, safeguards },
        replica: Some(Replica { me, hosts, resend: timing.retry, patience: PATIENCE, safeguards }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        cluster = "test"
        insecure = true
        [timing]
        retry = "700ms"
        [[node]]
        name = "a"
        zone = "z1"
        address = "127.0.0.1:7101"
        storage = "a.redb"
        roles = ["host"]
        [[node]]
        name = "b"
        zone = "z2"
        address = "127.0.0.1:7102"
        storage = "b.redb"
        roles = ["host"]
        [[node]]
        name = "c"
        zone = "z3"
        address = "127.0.0.1:7103"
        storage = "c.redb"
        roles = ["host"]
        [[node]]
        name = "s"
        address = "127.0.0.1:7104"
        storage = "s.redb"
        roles = ["store"]
        [[node]]
        name = "w"
        address = "127.0.0.1:7105"
        storage = "w.redb"
        roles = ["client"]
        [[lease]]
        name = "orders"
        hosts = ["a", "b"]
        store = "s"
        [[lease]]
        name = "stock"
        hosts = ["c", "b"]
        store = "s"
    "#;

    fn leases(spec: &Spec<Member>) -> Vec<u16> {
        spec.actors.iter().map(|(lease, _)| *lease).collect()
    }

    #[test]
    fn a_node_has_an_actor_for_each_lease_that_it_has_a_part_in() {
        let config = Config::parse(FILE).unwrap();
        for (name, expected) in
            [("a", &[0][..]), ("b", &[0, 1]), ("c", &[1]), ("s", &[0, 1]), ("w", &[0, 1])]
        {
            let spec = spec(&config, name).unwrap();
            assert_eq!(leases(&spec), expected, "{name}");
            assert_eq!(spec.me, config.node(name).unwrap().id);
            assert_eq!(spec.peers.len(), 5);
            let of_node = leases_of(&config, config.node(name).unwrap());
            assert_eq!(of_node.map(|lease| lease.index).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_host_keeps_every_rule_and_has_the_numbers_of_its_lease() {
        let config = Config::parse(FILE).unwrap();
        let spec = spec(&config, "b").unwrap();
        let Member::Host(host) = &spec.actors[1].1 else { panic!("a host") };
        assert_eq!(host.elector.safeguards, Safeguards::ALL);
        assert_eq!(host.elector.hosts, [NodeId(1), NodeId(2)].into_iter().collect());
        assert_eq!(host.elector.store, NodeId(3));
        assert_eq!(host.elector.timing, config.leases[1].timing.get());
        let replica = host.replica.as_ref().unwrap();
        assert_eq!(replica.safeguards, Safeguards::ALL);
        assert_eq!(replica.resend.as_millis(), 700);
    }

    #[test]
    fn a_store_knows_who_may_write_which_record() {
        let config = Config::parse(FILE).unwrap();
        let spec = spec(&config, "s").unwrap();
        let hosts = spec.actors.iter().map(|(_, member)| match member {
            Member::Store(store) => store.hosts.iter().map(|node| node.0).collect::<Vec<_>>(),
            _ => panic!("a store"),
        });
        assert_eq!(hosts.collect::<Vec<_>>(), [[0, 1], [1, 2]]);
    }

    /// Two nodes of which one has read the list in another order would hold one lease each, and mean the same.
    //= SPEC LEASE-40 test
    #[test]
    fn the_rows_of_a_lease_are_never_those_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let start = |file: &str, name: &str| {
            let mut spec = spec(&Config::parse(file).unwrap(), name).unwrap();
            spec.bind = Bind::To("127.0.0.1:0".parse().unwrap());
            spec.storage = Some(directory.path().join(name));
            crate::node::Node::start(spec).map(|handle| drop(handle.kill()))
        };
        let lease = "[[lease]]\nname = \"bonds\"\nhosts = [\"c\", \"b\"]\nstore = \"s\"\n";
        let (head, first) = FILE.split_at(FILE.find("[[lease]]").unwrap());
        let swapped = FILE.replace("\"orders\"", "\"x\"").replace("\"stock\"", "\"orders\"");
        let swapped = swapped.replace("\"x\"", "\"stock\"");
        for name in ["b", "s", "w"] {
            assert_eq!(start(FILE, name), Ok(()), "{name}");
            let error = start(&swapped, name).unwrap_err().to_string();
            assert!(error.contains("has lease \"orders\" at place 1"), "{error}");
            assert!(error.contains("give it its place and its name back"), "{error}");
            assert_eq!(start(FILE, name), Ok(()), "it was left as it is");
        }
        // It has no part in the lease that another name has now, and none of its rows.
        let renamed = FILE.replace("\"orders\"", "\"orders-2\"");
        assert_eq!(start(FILE, "c"), Ok(()));
        assert_eq!(start(&renamed, "c"), Ok(()));
        // It would find nothing at the new place, and begin the lease anew.
        let inserted = format!("{head}{lease}{first}");
        assert_eq!(start(FILE, "a"), Ok(()));
        let error = start(&inserted, "a").unwrap_err().to_string();
        assert!(error.contains("has lease \"orders\" at place 1"), "{error}");
        // A lease that was added has a place of its own.
        let more = FILE.to_owned() + lease;
        assert_eq!(start(&more, "b"), Ok(()));
        assert_eq!(start(FILE, "b"), Ok(()), "one that is not among the leases is kept");
        let others = FILE.to_owned() + &lease.replace("bonds", "cash");
        let error = start(&others, "b").unwrap_err().to_string();
        assert!(error.contains("has lease \"bonds\" at place 3"), "{error}");
    }

    #[test]
    fn what_cannot_be_made_says_what_to_do() {
        let config = Config::parse(FILE).unwrap();
        let error = spec(&config, "x").err().unwrap().to_string();
        assert!(error.contains("the nodes are a, b, c, s, w"), "{error}");
    }
}

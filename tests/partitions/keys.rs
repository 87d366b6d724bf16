//! A key for each node, as a user has them: made by the program's own means, and listed in every node's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tenure::lease::record::NodeId;
use tenure::node::keys::{new_secret, time_of_day, write_secret};
use tenure::wire::Sealed;
use tenure::wire::seal::{Keyring, Listed, SecretKey};

use super::nodes::{CLUSTER, NAMES};

/// How long they are good: longer than any schedule takes.
const GOOD_FOR: u64 = 365 * 86_400;

/// The keys of all nodes of a cluster.
pub struct Keys {
    secrets: Vec<SecretKey>,
    not_after: u64,
}

impl Keys {
    /// Makes them, and leaves their files in this folder.
    pub fn make(folder: &Path) -> Self {
        let secrets: Vec<_> = NAMES.map(|_| new_secret().expect("randomness")).into();
        for (secret, name) in secrets.iter().zip(NAMES) {
            write_secret(&folder.join(file_of(name)), secret).expect("a key file");
        }
        Self { secrets, not_after: time_of_day() + GOOD_FOR }
    }

    /// What a cluster file says of a node's key.
    pub fn section(&self, node: usize) -> String {
        let public = self.secrets[node].public();
        let date = jiff::Timestamp::from_second(self.not_after as i64).expect("a date");
        let secret = file_of(NAMES[node]);
        format!(
            "[[node.key]]\npublic = \"{public}\"\nnot_after = \"{date}\"\nsecret = {secret:?}\n"
        )
    }

    /// For each node a seal that opens what it opens.
    pub fn seals(&self) -> Vec<Sealed> {
        let listed = |secret: &SecretKey| {
            vec![Listed { public: secret.public(), not_after: self.not_after }]
        };
        let ids = (0..).map(NodeId);
        let all: BTreeMap<_, _> = ids.zip(self.secrets.iter().map(listed)).collect();
        let seal = |(me, secret): (NodeId, &SecretKey)| {
            let own = [(secret.clone(), self.not_after)];
            let ring = Keyring::new(CLUSTER, me, &own, &all).expect("good keys");
            // It seals nothing, so that it needs no random number of its own.
            Sealed::new(ring, [0; 12])
        };
        (0..).map(NodeId).zip(&self.secrets).map(seal).collect()
    }
}

fn file_of(name: &str) -> PathBuf {
    format!("{name}.key").into()
}

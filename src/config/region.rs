//! The regions of a cluster file: who runs them, what they own, and their numbers.
//!
//! ```toml
//! [[region]]
//! name = "east"
//! control_plane = "east"          # a node with that role; customers and operators call its `control`
//! servers = ["east-1", "east-2"]  # nodes with the role irc-server
//! seal_key = "keys/east.seal"     # relative to this file, and never in a backup of the storage
//!
//! [[region.network]]
//! id = 1
//! account = 7
//! cidr = "10.1.0.0/16"
//!
//! [region.timing]                 # each key is optional
//! claim = "30s"
//! probe = "1s"                    # one retry more, or one probe of a region that does not answer
//!
//! [region.quota]                  # each key is optional
//! peerings = 50
//! retry_percent = 10              # retries for each hundred first sends to one region, besides
//! breaker_percent = 50            # of the last 20 calls to it: so many failed, and only probes go out
//! ```

use std::net::Ipv4Addr;

use super::*;
use crate::irc::control::Policy;
use crate::irc::facts::{self, Account, Block, Network};
use crate::irc::pace::{Pacing, WINDOW};

/// The most regions that a cluster can have.
pub const REGIONS_MAX: usize = NodeId::LIMIT as usize;

/// One region of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its index in the file.
    pub index: facts::Region,
    /// Its name: 1 to [`NAME_CHARS_MAX`] of a-z, 0-9 and the hyphen; unique.
    pub name: String,
    /// The node of its control plane, which has a control address.
    pub control_plane: NodeId,
    /// Its IRC servers: at least one, each of this region alone.
    pub servers: Vec<NodeId>,
    /// The file of the key under which it seals its facts; no node's storage.
    pub seal_key: PathBuf,
    /// Its networks: who owns each, and its addresses.
    pub networks: BTreeMap<Network, (Account, Block)>,
    /// The numbers of its control plane.
    pub policy: Policy,
    /// The numbers of its servers.
    pub carrier: Carrier,
}

/// The numbers of an IRC server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// How often it polls.
    pub poll: Duration,
    /// How long it waits for another region: below half of the lease of a claim.
    pub call: Duration,
    /// How many pieces of work it takes at a time.
    pub width: u8,
}

impl Default for Carrier {
    fn default() -> Self {
        Self { poll: Duration::from_millis(50), call: Duration::from_secs(5), width: 64 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRegion {
    pub(super) name: String,
    control_plane: String,
    servers: Vec<String>,
    seal_key: String,
    #[serde(default)]
    network: Vec<RawNetwork>,
    #[serde(default)]
    timing: RawRegionTiming,
    #[serde(default)]
    quota: RawQuota,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    id: u32,
    account: u32,
    cidr: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegionTiming {
    claim: Option<String>,
    call: Option<String>,
    poll: Option<String>,
    sweep: Option<String>,
    retry_floor: Option<String>,
    retry_base: Option<String>,
    retry_cap: Option<String>,
    probe: Option<String>,
    tick: Option<String>,
    pending: Option<String>,
    remember: Option<String>,
    tokens: Option<String>,
    backlog: Option<String>,
    client_retry: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuota {
    peerings: Option<usize>,
    requests: Option<usize>,
    requests_per_account: Option<usize>,
    in_flight: Option<usize>,
    retry_percent: Option<u32>,
    breaker_percent: Option<u32>,
    width: Option<u8>,
}

/// An unsigned number with a name, for a look at all of them.
type Named<T> = (&'static str, T);

impl Reader {
    //= SPEC REGION-1
    pub(super) fn region(
        &mut self,
        index: u16,
        raw: RawRegion,
        names: &mut BTreeSet<String>,
        directory: &Path,
    ) -> Option<Region> {
        let place = Place::Region(raw.name.clone());
        self.name(&place, "name", &raw.name);
        if !names.insert(raw.name.clone()) {
            self.errors.push(ConfigError::DuplicateName { place: place.clone() });
        }
        let control_plane = self.own(&place, &raw.name, &raw.control_plane, Role::ControlPlane);
        let mut seen = BTreeSet::new();
        let mut servers = Vec::new();
        for name in &raw.servers {
            if !seen.insert(name) {
                let (place, node) = (place.clone(), name.clone());
                self.errors.push(ConfigError::DuplicateHost { place, node });
                continue;
            }
            servers.extend(self.own(&place, &raw.name, name, Role::IrcServer));
        }
        if seen.is_empty() {
            self.errors.push(ConfigError::NoServers { place: place.clone() });
        }
        let seal_key = self.seal_key(&place, &raw.seal_key, directory);
        let networks = self.networks(&place, &raw.network);
        let (policy, carrier) = self.numbers(&place, &raw.timing, &raw.quota)?;
        Some(Region {
            index: facts::Region(index),
            name: raw.name,
            control_plane: control_plane?,
            servers,
            seal_key: seal_key?,
            networks,
            policy,
            carrier,
        })
    }

    /// The node of that name and role, which is in no other region.
    fn own(&mut self, place: &Place, region: &str, name: &str, role: Role) -> Option<NodeId> {
        let id = self.member(place, name, role)?;
        if let Some(other) = self.regional.insert(name.to_owned(), region.to_owned())
            && other != region
        {
            let (place, node) = (place.clone(), name.to_owned());
            self.errors.push(ConfigError::NodeOfTwo { place, node, other });
        }
        Some(id)
    }

    /// Every node of a region's role is in a region.
    pub(super) fn all_have_regions(&mut self) {
        for (name, known) in &self.nodes {
            if let Some(role @ (Role::ControlPlane | Role::IrcServer)) = known.role
                && !self.regional.contains_key(name)
            {
                let place = Place::Node(name.clone());
                self.errors.push(ConfigError::NoRegion { place, role });
            }
        }
    }

    fn seal_key(&mut self, place: &Place, text: &str, directory: &Path) -> Option<PathBuf> {
        let (place, path) = (place.clone(), text.to_owned());
        if Path::new(text).file_name().is_none() || text.ends_with(std::path::is_separator) {
            self.errors.push(ConfigError::SealKey { place, path });
            return None;
        }
        let full = directory.join(text);
        // One key for two regions would let either speak for the other; and a key in a storage file
        // would go back with it.
        match self.storages.insert(plain(&full), place.to_string()) {
            Some(other) => {
                self.errors.push(ConfigError::SealKeyTaken { place, path, other });
                None
            }
            None => Some(full),
        }
    }

    fn networks(
        &mut self,
        place: &Place,
        raw: &[RawNetwork],
    ) -> BTreeMap<Network, (Account, Block)> {
        let mut networks = BTreeMap::new();
        for RawNetwork { id, account, cidr } in raw {
            let Some(block) = block(cidr) else {
                let (place, network, text) = (place.clone(), *id, cidr.clone());
                self.errors.push(ConfigError::Cidr { place, network, text });
                continue;
            };
            if networks.insert(Network(*id), (Account(*account), block)).is_some() {
                let (place, network) = (place.clone(), *id);
                self.errors.push(ConfigError::DuplicateNetwork { place, network });
            }
        }
        networks
    }

    fn numbers(
        &mut self,
        place: &Place,
        raw: &RawRegionTiming,
        quota: &RawQuota,
    ) -> Option<(Policy, Carrier)> {
        let known = self.errors.len();
        let default = Policy::default();
        let mut length = |key, text: &Option<String>, default: Duration| {
            let Some(text) = text else { return (key, default) };
            let length = duration::parse(text).unwrap_or_else(|error| {
                self.errors.push(ConfigError::Duration { place: place.clone(), key, error });
                default
            });
            (key, length)
        };
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        let claim = length("claim", &raw.claim, default.lease);
        let call = length("call", &raw.call, Carrier::default().call);
        let poll = length("poll", &raw.poll, Carrier::default().poll);
        let sweep = length("sweep", &raw.sweep, default.sweep.unwrap_or(Duration::from_secs(5)));
        let floor = length("retry_floor", &raw.retry_floor, default.retry[0]);
        let cap = length("retry_cap", &raw.retry_cap, default.retry[1]);
        let base = length("retry_base", &raw.retry_base, default.retry[2]);
        let probe = length("probe", &raw.probe, default.pacing.probe);
        let tick = length("tick", &raw.tick, default.tick);
        let pending = length("pending", &raw.pending, days(7));
        let remember = length("remember", &raw.remember, days(2));
        let tokens = length("tokens", &raw.tokens, days(30));
        let backlog = length("backlog", &raw.backlog, days(7));
        let client_retry = length("client_retry", &raw.client_retry, days(7));
        if self.errors.len() > known {
            return None;
        }
        let mut wrong = Vec::new();
        for (key, length) in
            [claim, call, poll, sweep, floor, cap, base, probe, tick, pending, remember, tokens]
        {
            if length.is_zero() {
                wrong.push(format!("{key} is 0: give a time"));
            }
        }
        let is_in_order = |wrong: &mut Vec<String>, low: Named<Duration>, high: Named<Duration>| {
            if low.1 > high.1 {
                wrong.push(format!("{} is longer than {}: shorten it", low.0, high.0));
            }
        };
        is_in_order(&mut wrong, floor, base);
        is_in_order(&mut wrong, base, cap);
        // A claim must still be the server's own when it reports that nobody has answered (I-20).
        if call.1 >= claim.1 / 2 {
            wrong.push("call is not below half of claim: shorten call, or lengthen claim".into());
        }
        let need = [pending.1, backlog.1, client_retry.1]
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add);
        //= SPEC REGION-2
        if tokens.1 < need {
            wrong.push(format!(
                "tokens must be at least pending + backlog + client_retry, {} s, or a call that is \
                 repeated late takes effect twice: lengthen tokens",
                need.as_secs_f64()
            ));
        }
        let mut ticks = |(key, length): Named<Duration>| {
            let unit = tick.1.as_nanos().max(1);
            if !length.as_nanos().is_multiple_of(unit) {
                wrong.push(format!("{key} is no multiple of tick, the unit of the region's clock"));
            }
            u64::try_from(length.as_nanos() / unit).unwrap_or(u64::MAX)
        };
        let (pending, remember, tokens) = (ticks(pending), ticks(remember), ticks(tokens));
        let retry_percent = quota.retry_percent.unwrap_or(default.pacing.retry_percent);
        let breaker_percent = quota.breaker_percent.unwrap_or(50);
        if !(1..=100).contains(&breaker_percent) {
            wrong.push("breaker_percent is a share of calls: give 1 to 100".into());
        }
        let failures = (breaker_percent.min(100) * WINDOW).div_ceil(100).max(1);
        let mut number = |key: &str, value: Option<usize>, default: usize| {
            let value = value.unwrap_or(default);
            if value == 0 {
                wrong.push(format!("{key} is 0: give at least 1"));
            }
            value
        };
        let peerings = number("peerings", quota.peerings, default.quota[0]);
        let requests = number("requests", quota.requests, default.quota[1]);
        let of_account =
            number("requests_per_account", quota.requests_per_account, default.quota[2]);
        let claims = number("in_flight", quota.in_flight, default.claims);
        let width = quota.width.map(usize::from);
        let width = number("width", width, Carrier::default().width.into());
        //= SPEC REGION-17
        if width <= claims {
            wrong.push(format!(
                "width is {width}, and in_flight {claims}: one region that does not answer would take \
                 every place of a server; let width be above in_flight"
            ));
        }
        for reason in wrong {
            self.errors.push(ConfigError::RegionNumber { place: place.clone(), reason });
        }
        if self.errors.len() > known {
            return None;
        }
        let policy = Policy {
            tick: tick.1,
            pending,
            remember,
            tokens,
            lease: claim.1,
            retry: [floor.1, cap.1, base.1],
            sweep: Some(sweep.1),
            claims,
            pacing: Pacing { retry_percent, probe: probe.1, failures },
            quota: [peerings, requests, of_account],
        };
        let width = u8::try_from(width).unwrap_or(u8::MAX);
        Some((policy, Carrier { poll: poll.1, call: call.1, width }))
    }
}

/// Reads a block of addresses. The bits behind the prefix must be 0.
fn block(text: &str) -> Option<Block> {
    let (address, prefix) = text.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let prefix: u8 = prefix.parse().ok().filter(|&prefix| prefix <= 32)?;
    let behind = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    (address & behind == 0).then_some(Block { address, prefix })
}

impl Config {
    /// The region of that name.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The region of which this node is the control plane or a server.
    pub fn region_of(&self, id: NodeId) -> Option<&Region> {
        let mut regions = self.regions.iter();
        regions.find(|region| region.control_plane == id || region.servers.contains(&id))
    }

    /// The name of the region with that index, or a word for one that is not in the file.
    pub fn region_name(&self, index: facts::Region) -> String {
        let known = self.regions.get(usize::from(index.0));
        known.map_or_else(|| format!("region-{}", index.0), |region| region.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../examples/regions.toml");

    fn problems(from: &str, to: &str) -> Vec<String> {
        assert!(GOOD.contains(from), "{from:?} is not in the file");
        let errors = Config::parse(&GOOD.replacen(from, to, 1)).expect_err("it is refused");
        errors.iter().map(ToString::to_string).collect()
    }

    //= SPEC REGION-1 test
    #[test]
    fn the_example_is_good_and_says_the_defaults() {
        let config = Config::parse(GOOD).expect("it is good");
        assert!(config.leases.is_empty());
        let [east, west] = &config.regions[..] else { panic!("two regions") };
        assert_eq!((east.index, west.index), (facts::Region(0), facts::Region(1)));
        assert_eq!(
            (east.control_plane, &east.servers[..]),
            (NodeId(0), &[NodeId(1), NodeId(2)][..])
        );
        assert_eq!((&east.policy, east.carrier), (&west.policy, west.carrier));
        assert_eq!(east.policy, Policy::default());
        assert_eq!(west.carrier, Carrier::default());
        let (account, block) = west.networks[&Network(3)];
        assert_eq!((account, block), (Account(8), Block { address: 0x0a67_0000, prefix: 16 }));
        assert_eq!(config.region_of(NodeId(4)).map(|region| &*region.name), Some("west"));
        assert_eq!(config.region_name(facts::Region(1)), "west");
    }

    /// Each mistake is one problem, which says where it is and what to do.
    //= SPEC REGION-1 test
    #[test]
    fn every_mistake_is_told_where_it_is() {
        for (from, to, place, what) in [
            (
                "control_plane = \"west\"",
                "control_plane = \"east-1\"",
                "region \"west\"",
                "role is control-plane",
            ),
            (
                "\"west-1\", \"west-2\"",
                "\"west-1\", \"east-2\"",
                "region \"west\"",
                "is in region \"east\" too",
            ),
            (
                "\"west-1\", \"west-2\"",
                "\"west-1\", \"nobody\"",
                "region \"west\"",
                "is not a node",
            ),
            (
                "\"west-1\", \"west-2\"",
                "\"west-1\", \"west-1\"",
                "region \"west\"",
                "listed more than once",
            ),
            ("\"west-1\", \"west-2\"", "", "region \"west\"", "there are no servers"),
            (
                "\"west-1\", \"west-2\"",
                "\"west-1\"",
                "node \"west-2\"",
                "no [[region]] names this one",
            ),
            (
                "seal_key = \"west.seal\"",
                "seal_key = \"east.seal\"",
                "region \"west\"",
                "is a file of region \"east\"",
            ),
            (
                "seal_key = \"west.seal\"",
                "seal_key = \"./east.redb\"",
                "region \"west\"",
                "is a file of east already",
            ),
            ("seal_key = \"west.seal\"", "seal_key = \"\"", "region \"west\"", "names no file"),
            (
                "name = \"west\"\ncontrol_plane",
                "name = \"east\"\ncontrol_plane",
                "region \"east\"",
                "another one of that name",
            ),
            (
                "cidr = \"10.101.0.0/16\"",
                "cidr = \"10.101.0.1/16\"",
                "network 1",
                "nothing behind the prefix",
            ),
            ("cidr = \"10.101.0.0/16\"", "cidr = \"10.101.0.0/33\"", "network 1", "no block"),
            ("id = 3", "id = 2", "network 2", "there twice"),
            ("call = \"5s\"", "call = \"15s\"", "region \"east\"", "below half of claim"),
            ("poll = \"50ms\"", "poll = \"0s\"", "region \"east\"", "poll is 0"),
            ("poll = \"50ms\"", "poll = \"50\"", "region \"east\": poll", "no unit"),
            (
                "retry_floor = \"250ms\"",
                "retry_floor = \"2s\"",
                "region \"east\"",
                "longer than retry_base",
            ),
            (
                "retry_cap = \"100s\"",
                "retry_cap = \"100ms\"",
                "region \"east\"",
                "longer than retry_cap",
            ),
            ("pending = \"7d\"", "pending = \"90s\"", "region \"east\"", "no multiple of tick"),
            ("peerings = 50", "peerings = 0", "region \"east\"", "peerings is 0"),
            ("control = \"127.0.0.1:7400\"", "", "node \"east\"", "needs a control"),
        ] {
            let told = problems(from, to);
            let is_told = |problem: &String| problem.contains(place) && problem.contains(what);
            assert!(told.iter().any(is_told), "{from} -> {to}: {told:#?}");
        }
    }

    /// A token that is forgotten before its call is repeated for the last time takes effect twice.
    //= SPEC REGION-2 test
    #[test]
    fn tokens_are_kept_for_as_long_as_a_call_may_be_repeated() {
        let told = problems("tokens = \"30d\"", "tokens = \"20d\"");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("at least pending + backlog + client_retry"), "{told:?}");
        assert!(Config::parse(&GOOD.replacen("tokens = \"30d\"", "tokens = \"21d\"", 1)).is_ok());
    }

    //= SPEC REGION-17 test
    #[test]
    fn one_remote_may_not_take_every_place_of_a_server() {
        let told = problems("width = 64", "width = 32");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("let width be above in_flight"), "{told:?}");
        assert!(Config::parse(&GOOD.replacen("width = 64", "width = 33", 1)).is_ok());
    }

    #[test]
    fn one_region_is_refused_and_leases_may_stand_beside_regions() {
        let (two, _) = GOOD.split_once("[[region]]\nname = \"west\"").expect("there is a west");
        let errors = Config::parse(two).expect_err("one region");
        assert!(errors.iter().any(|error| *error == ConfigError::OneRegion), "{errors}");
        let both = format!(
            "{GOOD}\n[[node]]\nname = \"a\"\nzone = \"x\"\naddress = \"127.0.0.1:1\"\n\
             storage = \"a\"\nroles = [\"host\"]\n[[node]]\nname = \"b\"\nzone = \"y\"\n\
             address = \"127.0.0.1:2\"\nstorage = \"b\"\nroles = [\"host\"]\n[[node]]\nname = \"s\"\n\
             address = \"127.0.0.1:3\"\nstorage = \"s\"\nroles = [\"store\"]\n[[lease]]\nname = \"x\"\n\
             hosts = [\"a\", \"b\"]\nstore = \"s\"\n"
        );
        let config = Config::parse(&both).expect("both");
        assert_eq!((config.leases.len(), config.regions.len()), (1, 2));
    }
}

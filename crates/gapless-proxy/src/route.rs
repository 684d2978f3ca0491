//! The route table: which node a request goes to, and how a new snapshot takes its place.

use crate::error::ProxyError;
use crate::health::Verdict;
use crate::node::{Claim, Node, NodeKey, Standing};
use crate::sync::{Changes, lock};
use gapless_wire::route::{Applied, Member, NodeStatus, SNAPSHOT_VERSION, ServiceRoute, Snapshot};
use gapless_wire::settings::{Balance, Treatment};
use hyper::header::HeaderValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The longest hold that a snapshot may ask for: a client rarely waits longer.
const HOLD_LIMIT_MS: u64 = 60_000;
/// The shortest interval between two checks that a snapshot may ask for: below it the checks would be a load of their own.
const CHECK_INTERVAL_MIN_MS: u64 = 10;

/// A service as it is in force.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) retry: bool,
    pub(crate) hold: Duration,
    pub(crate) treatment: Arc<Treatment>,
    members: Vec<Share>,
    /// The newest release that has a share of the traffic.
    newest: Option<Arc<str>>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

/// A member and its part of the traffic.
#[derive(Debug)]
struct Share {
    node: Arc<Node>,
    weight: u32,
    /// The same for all members of one release and one weight: these are equals.
    equals: usize,
}

/// Where a request would rather go than anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// To the newest release that has a share of the traffic.
    pub(crate) newest: bool,
    /// To this node of this release, or at least to this release.
    pub(crate) place: Option<(&'a str, &'a str)>,
}

/// In which order members may be used: those that pass and were not tried, then those nobody checked yet, then any that were tried but do not fail, and last those whose checks are late. A wish
/// counts among the first ones, up to [`WISHED`].
const ORDER: [(Verdict, bool); 6] = [
    (Verdict::Passing, false),
    (Verdict::Unknown, false),
    (Verdict::Passing, true),
    (Verdict::Unknown, true),
    (Verdict::Late, false),
    (Verdict::Late, true),
];
/// See [`ORDER`].
const WISHED: usize = 2;

impl Service {
    /// How often a request may be sent at most.
    pub(crate) fn tries(&self) -> usize {
        self.members.len() + 1
    }

    /// How many requests are on their way to its members.
    pub(crate) fn requests_in_flight(&self) -> u32 {
        self.members.iter().map(|share| share.node.requests_in_flight()).sum()
    }

    fn choose(&self, tried: &[NodeKey], wish: Wish<'_>, dice: &mut Dice) -> Option<Arc<Node>> {
        let release = match wish.place {
            Some((_, release)) => Some(release),
            None if wish.newest => self.newest.as_deref(),
            None => None,
        };
        if let Some(release) = release {
            let node = wish.place.map(|(node, _)| node);
            let wished = |share: &Share| *share.node.release == *release;
            let exactly = |share: &Share| wished(share) && node == Some(share.node.name.as_str());
            let found = node.and_then(|_| self.choose_among(&ORDER[..WISHED], tried, exactly, dice));
            if let Some(node) = found.or_else(|| self.choose_among(&ORDER[..WISHED], tried, wished, dice)) {
                return Some(node);
            }
        }
        self.choose_among(&ORDER, tried, |_| true, dice)
    }

    /// The weights alone decide which release and which weight a request goes to, whatever the load, so that a canary gets its percentage and every request's
    /// release is an independent draw: that is what an analysis of both rests on. Among equals the service's balance decides, and those that lost requests in a row are left alone while others
    /// are there.
    fn choose_among(
        &self,
        order: &[(Verdict, bool)],
        tried: &[NodeKey],
        fits: impl Fn(&Share) -> bool,
        dice: &mut Dice,
    ) -> Option<Arc<Node>> {
        for (verdict, again) in order {
            let may = |share: &Share| {
                share.weight > 0 && share.node.verdict() == *verdict && (*again || !tried.contains(&share.node.key)) && fits(share)
            };
            if let Some(first) = pick(&self.members, |share| if may(share) { u64::from(share.weight) } else { 0 }, dice) {
                let is_equal = |share: &Share| share.equals == first.equals && may(share);
                let is_well = |share: &Share| is_equal(share) && !share.node.is_ejected();
                let Some(well) = self.members.iter().find(|share| is_well(share)) else {
                    return Some(self.balance(first, is_equal, dice));
                };
                return Some(self.balance(if is_well(first) { first } else { well }, is_well, dice));
            }
        }
        None
    }

    fn balance(&self, first: &Share, is_equal: impl Fn(&Share) -> bool, dice: &mut Dice) -> Arc<Node> {
        let slow_start = Duration::from_millis(self.treatment.slow_start_ms);
        let warmth = |share: &Share| if is_equal(share) { share.node.warmth(slow_start) } else { 0 };
        if self.treatment.balance == Balance::RoundRobin {
            let equals = self.members.iter().filter(|share| is_equal(share));
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % equals.clone().count().max(1);
            return equals.clone().nth(turn).unwrap_or(first).node.clone();
        }
        let one = if slow_start.is_zero() { first } else { pick(&self.members, warmth, dice).unwrap_or(first) };
        let other = pick(&self.members, warmth, dice).unwrap_or(one);
        let is_less_busy = other.node.requests_in_flight() < one.node.requests_in_flight();
        if is_less_busy { other.node.clone() } else { one.node.clone() }
    }
}

/// Draws one, by weight; `None` when all weigh nothing.
fn pick<'a>(members: &'a [Share], weight: impl Fn(&Share) -> u64, dice: &mut Dice) -> Option<&'a Share> {
    let total: u64 = members.iter().map(&weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = dice.below(total);
    for member in members {
        let weight = weight(member);
        if at < weight {
            return Some(member);
        }
        at -= weight;
    }
    None
}

/// A small random source for balancing (xorshift64*); not for secrets.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeds that differ in one bit only, as those of a worker's cores, lead to sequences that have nothing in common.
    pub(crate) fn new(seed: u64) -> Self {
        // The output function of SplitMix64 (Steele, Lea and Flood, 2014), which maps no two seeds to one.
        let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^= state >> 31;
        // 0 is the one state that xorshift never leaves.
        Self(if state == 0 { 1 } else { state })
    }

    /// Any number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.draw() >> 11) % limit
    }
}

/// The services of one host: the longest path first.
type Paths = Vec<(String, Arc<Service>)>;

#[derive(Debug, Default)]
struct Table {
    snapshot: Snapshot,
    services: Vec<Arc<Service>>,
    by_host: HashMap<String, Paths>,
    any: Paths,
}

impl Table {
    fn service(&self, host: &str, path: &[u8]) -> Option<&Arc<Service>> {
        let matching = |paths: &'_ Paths| paths.iter().position(|(prefix, _)| is_below(path, prefix.as_bytes()));
        let of_host = self.by_host.get(host).and_then(|paths| matching(paths).map(|at| &paths[at].1));
        of_host.or_else(|| matching(&self.any).map(|at| &self.any[at].1))
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.services.iter().flat_map(|service| service.members.iter().map(|share| share.node.clone())).collect()
    }

    fn applied(&self) -> Applied {
        Applied { generations: self.snapshot.services.iter().map(|(name, route)| (name.clone(), route.generation)).collect() }
    }

    fn enter(&mut self, place: &str, service: &Arc<Service>) {
        let (host, path) = split_place(place);
        let paths = if host == "*" { &mut self.any } else { self.by_host.entry(host.to_string()).or_default() };
        if !paths.iter().any(|(taken, _)| taken == path) {
            paths.push((path.to_string(), service.clone()));
        }
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    }
}

/// A place that a service answers: its host, and the path that its requests begin with; empty: any.
pub(crate) fn split_place(place: &str) -> (&str, &str) {
    place.find('/').map_or((place, ""), |at| place.split_at(at))
}

/// Whether a target is the path `prefix`, or one below it.
fn is_below(target: &[u8], prefix: &[u8]) -> bool {
    target.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || matches!(rest[0], b'/' | b'?'))
}

/// The members in force, by service and name.
type Known<'a> = HashMap<(&'a str, &'a str), &'a Arc<Node>>;

/// What a new snapshot changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Every member there is now.
    pub(crate) members: Vec<Arc<Node>>,
    /// Nodes that connections must not wait for any more.
    pub(crate) without_idle: Vec<NodeKey>,
}

/// What came of asking for a node.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This one, counted.
    Claimed(Claim, Arc<Service>),
    /// The service has no member that may be used now.
    NoneReady(Arc<Service>),
    /// The service left since.
    Unknown,
}

/// All routes of a worker.
#[derive(Debug)]
pub(crate) struct Routes {
    table: RwLock<Table>,
    departed: Mutex<Vec<Arc<Node>>>,
    treatments: Mutex<BTreeMap<String, Arc<Treatment>>>,
    next_key: AtomicU64,
    changes: Arc<Changes>,
}

impl Routes {
    pub(crate) fn new(changes: Arc<Changes>) -> Self {
        Self { table: RwLock::default(), departed: Mutex::default(), treatments: Mutex::default(), next_key: AtomicU64::new(1), changes }
    }

    /// The service that answers this host (lower case, no port) and this target.
    pub(crate) fn service(&self, host: &str, target: &[u8]) -> Option<Arc<Service>> {
        self.read(|table| table.service(host, target).cloned())
    }

    /// The service of this name.
    pub(crate) fn named_service(&self, name: &str) -> Option<Arc<Service>> {
        self.read(|table| table.services.iter().find(|service| *service.name == *name).cloned())
    }

    /// Claims a node for a request. Choosing and counting happen under the table's lock, and [`Self::apply`] takes it for writing: a claim is either
    /// counted on the old table before the change, or made on the new one.
    pub(crate) fn claim(&self, host: &str, target: &[u8], tried: &[NodeKey], wish: Wish<'_>, dice: &mut Dice) -> Choice {
        self.read(|table| table.service(host, target).map_or(Choice::Unknown, |service| claim_of(service, tried, wish, dice)))
    }

    /// Claims a node for a connection to the service of this name.
    pub(crate) fn claim_named(&self, name: &str, tried: &[NodeKey], dice: &mut Dice) -> Choice {
        self.read(|table| {
            let service = table.services.iter().find(|service| *service.name == *name);
            service.map_or(Choice::Unknown, |service| claim_of(service, tried, Wish::default(), dice))
        })
    }

    /// Treats the services so from now on, by their full names. One caller at a time, the same one as of [`Self::apply`].
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(crate) fn treat(&self, treatments: &BTreeMap<String, Treatment>) -> Result<Change, ProxyError> {
        *lock(&self.treatments) = treatments.iter().map(|(name, treatment)| (name.clone(), Arc::new(treatment.clone()))).collect();
        self.apply(self.snapshot())
    }

    /// Whether this snapshot may follow the applied one.
    ///
    /// # Errors
    /// With the generations in force, when one of the snapshot's is older.
    pub(crate) fn refuse_older(&self, snapshot: &Snapshot) -> Result<(), Applied> {
        self.read(|table| {
            let older = |(name, route): (&String, &ServiceRoute)| {
                table.snapshot.services.get(name).is_some_and(|now| route.generation < now.generation)
            };
            if snapshot.services.iter().any(older) { Err(table.applied()) } else { Ok(()) }
        })
    }

    /// Puts a snapshot in force. One caller at a time.
    ///
    /// # Errors
    /// When a node cannot be made of a member; nothing has changed then.
    pub(crate) fn apply(&self, snapshot: Snapshot) -> Result<Change, ProxyError> {
        let table = self.build(snapshot)?;
        let members = table.nodes();
        let before = {
            let mut now = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *now, table).nodes();
            for node in &before {
                node.set_standing(Standing::Left);
            }
            for service in &now.services {
                for Share { node, weight, .. } in &service.members {
                    node.set_standing(if *weight > 0 { Standing::Weighted } else { Standing::Probed });
                }
            }
            before
        };
        let stays: HashSet<NodeKey> = members.iter().map(|node| node.key).collect();
        let left: Vec<Arc<Node>> = before.iter().filter(|node| !stays.contains(&node.key)).cloned().collect();
        left.iter().for_each(|node| node.set_left());
        let mut departed = lock(&self.departed);
        departed.extend(left);
        departed.retain(|node| node.is_in_use());
        drop(departed);
        self.changes.bump();
        let without_idle = before.iter().filter(|node| !node.is_weighted()).map(|node| node.key).collect();
        Ok(Change { members, without_idle })
    }

    pub(crate) fn applied(&self) -> Applied {
        self.read(Table::applied)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.read(|table| table.snapshot.clone())
    }

    /// Every node of these names that still matters: members, and those that left while something was on its way to them.
    pub(crate) fn named(&self, service: &str, names: &[String]) -> Vec<Arc<Node>> {
        self.known().into_iter().filter(|node| *node.service == *service && names.contains(&node.name)).collect()
    }

    /// How every node is, by service and name.
    pub(crate) fn status(&self) -> BTreeMap<String, BTreeMap<String, NodeStatus>> {
        let mut services: BTreeMap<String, BTreeMap<String, NodeStatus>> =
            self.read(|table| table.snapshot.services.keys().map(|name| (name.clone(), BTreeMap::new())).collect());
        // Members come last, so that what they say stands where a name has left and come back.
        for node in self.known().into_iter().rev() {
            let nodes = services.entry(node.service.to_string()).or_default();
            let mut status = node.status();
            if let Some(other) = nodes.get(&node.name) {
                status.requests_in_flight += other.requests_in_flight;
                status.idle_connections += other.idle_connections;
            }
            nodes.insert(node.name.clone(), status);
        }
        services
    }

    fn known(&self) -> Vec<Arc<Node>> {
        let mut nodes = self.read(Table::nodes);
        let mut departed = lock(&self.departed);
        departed.retain(|node| node.is_in_use());
        nodes.extend(departed.iter().cloned());
        nodes
    }

    fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn build(&self, snapshot: Snapshot) -> Result<Table, ProxyError> {
        let mut table = Table::default();
        let nodes = self.read(Table::nodes);
        let known: Known = nodes.iter().map(|node| ((&*node.service, node.name.as_str()), node)).collect();
        for (name, route) in &snapshot.services {
            let service = Arc::new(self.build_service(name, route, &known)?);
            table.enter(&route.host, &service);
            table.services.push(service);
        }
        // What a service declares counts before what another one answers, too.
        for service in table.services.clone() {
            service.treatment.also.iter().for_each(|place| table.enter(place, &service));
        }
        table.snapshot = snapshot;
        Ok(table)
    }

    fn build_service(&self, name: &str, route: &ServiceRoute, known: &Known) -> Result<Service, ProxyError> {
        let service: Arc<str> = Arc::from(name);
        let mut members = Vec::with_capacity(route.members.len());
        let mut kinds: HashMap<(&str, u16), usize> = HashMap::new();
        for (node_name, member) in &route.members {
            let node = self.build_node(&service, node_name, member, &route.host, known)?;
            let next = kinds.len();
            let equals = *kinds.entry((&member.release, member.weight)).or_insert(next);
            members.push(Share { node, weight: u32::from(member.weight), equals });
        }
        let treatment = lock(&self.treatments).get(name).cloned().unwrap_or_default();
        let weighted = members.iter().filter(|share| share.weight > 0).map(|share| &share.node.release);
        let newest = weighted.max_by_key(|release| release_number(release)).cloned();
        let hold = Duration::from_millis(route.hold_ms);
        Ok(Service { name: service, retry: route.retry, hold, treatment, members, newest, turn: AtomicUsize::new(0) })
    }

    fn build_node(&self, service: &Arc<str>, name: &str, member: &Member, host: &str, known: &Known) -> Result<Arc<Node>, ProxyError> {
        let known = known.get(&(&**service, name)).copied();
        if let Some(node) = known.filter(|node| node.is(member)) {
            node.set_probe(member, host);
            return Ok(node.clone());
        }
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let node = Node::new(key, service.clone(), name, member, host, self.changes.clone())?;
        if let Some(same) = known.filter(|known| known.address == member.address && *known.release == *member.release) {
            node.inherit(same);
        }
        Ok(Arc::new(node))
    }
}

fn claim_of(service: &Arc<Service>, tried: &[NodeKey], wish: Wish<'_>, dice: &mut Dice) -> Choice {
    match service.choose(tried, wish, dice) {
        Some(node) => Choice::Claimed(Claim::take(node), service.clone()),
        None => Choice::NoneReady(service.clone()),
    }
}

/// The number that a release's name ends with (`web-r7`); what has none is older than all.
fn release_number(release: &str) -> u64 {
    release.rsplit_once("-r").and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// Whether a snapshot makes sense by itself.
///
/// # Errors
/// With what does not.
pub(crate) fn validate(snapshot: &Snapshot) -> Result<(), ProxyError> {
    if snapshot.version != SNAPSHOT_VERSION {
        return Err(ProxyError::new(format!("a snapshot of version {}: this proxy reads version {SNAPSHOT_VERSION}", snapshot.version)));
    }
    let mut hosts: HashMap<&str, &str> = HashMap::new();
    for (name, route) in &snapshot.services {
        if let Some(other) = hosts.insert(&route.host, name) {
            return Err(ProxyError::new(format!("the services `{other}` and `{name}` both answer the host `{}`", route.host)));
        }
        validate_route(name, route)?;
    }
    Ok(())
}

fn validate_route(name: &str, route: &ServiceRoute) -> Result<(), ProxyError> {
    let wrong = |what: String| Err(ProxyError::new(format!("service `{name}`: {what}")));
    let (host, path) = split_place(&route.host);
    if host.is_empty() || host != normal_host(host) {
        return wrong(format!("the host `{host}` must be lower case, without a port, and not empty"));
    }
    if path.ends_with('/') {
        return wrong(format!("the path `{path}` must not end with a slash"));
    }
    if route.hold_ms > HOLD_LIMIT_MS {
        return wrong(format!("hold_ms is {}: at most {HOLD_LIMIT_MS}", route.hold_ms));
    }
    for (node, member) in &route.members {
        if HeaderValue::from_str(node).is_err() || HeaderValue::from_str(&member.release).is_err() {
            return wrong(format!("node {node:?} of release {:?}: both names must be able to stand in a header", member.release));
        }
        if member.check.path.parse::<hyper::Uri>().is_err() || !member.check.path.starts_with('/') {
            return wrong(format!("node `{node}`: the check's path `{}` must begin with a slash", member.check.path));
        }
        if member.check.interval_ms < CHECK_INTERVAL_MIN_MS || member.check.timeout_ms == 0 {
            return wrong(format!("node `{node}`: a check needs an interval of at least {CHECK_INTERVAL_MIN_MS} ms and a timeout above 0"));
        }
    }
    Ok(())
}

/// A host as routes name it: lower case, no port, no final dot.
pub(crate) fn normal_host(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    without_port.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::route::Check;

    fn member(port: u16, weight: u16) -> Member {
        let check = Check { path: "/".into(), interval_ms: 1000, timeout_ms: 1000, passes: 1, failures: 1 };
        Member { address: ([127, 0, 0, 1], port).into(), weight, release: "web-r1".into(), check }
    }

    fn snapshot(generation: u64, members: &[(&str, u16, u16)]) -> Snapshot {
        let members = members.iter().map(|(name, port, weight)| ((*name).to_string(), member(*port, *weight))).collect();
        let route = ServiceRoute { generation, host: "*".into(), members, retry: true, hold_ms: 0 };
        Snapshot { version: SNAPSHOT_VERSION, services: BTreeMap::from([("hello/web".to_string(), route)]) }
    }

    fn claim(routes: &Routes) -> Option<Claim> {
        match routes.claim("any", b"/", &[], Wish::default(), &mut Dice::new(7)) {
            Choice::Claimed(claim, _) => Some(claim),
            _ => None,
        }
    }

    #[test]
    fn a_claim_outlives_the_route_and_is_counted_until_it_ends() {
        let routes = Routes::new(Arc::new(Changes::new()));
        routes.apply(snapshot(1, &[("a", 1, 1)])).unwrap();
        let held = claim(&routes).unwrap();
        let change = routes.apply(snapshot(2, &[("b", 2, 1)])).unwrap();
        assert_eq!(change.without_idle, vec![held.node.key]);
        assert_eq!(claim(&routes).unwrap().node.name, "b");
        assert_eq!(routes.status()["hello/web"]["a"].requests_in_flight, 1);
        drop(held);
        assert!(!routes.status()["hello/web"].contains_key("a"));
    }

    #[test]
    fn a_node_keeps_its_counts_from_weight_0_to_weight_1() {
        let routes = Routes::new(Arc::new(Changes::new()));
        routes.apply(snapshot(1, &[("a", 1, 0)])).unwrap();
        assert!(claim(&routes).is_none());
        let node = routes.named("hello/web", &["a".to_string()]).remove(0);
        node.note(Outcome::Passed);
        routes.apply(snapshot(2, &[("a", 1, 1)])).unwrap();
        assert_eq!(routes.status()["hello/web"]["a"].passes, 1);
        assert_eq!(claim(&routes).unwrap().node.key, node.key);
    }

    #[test]
    fn once_apply_has_returned_every_claim_is_on_the_new_table() {
        let routes = Routes::new(Arc::new(Changes::new()));
        let names = ["even", "odd"];
        let put = |generation: u64| drop(routes.apply(snapshot(generation, &[(names[(generation % 2) as usize], 1, 1)])).unwrap());
        put(0);
        // Twice the generation in force; odd while a change is under way.
        let phase = AtomicU64::new(0);
        let claims = AtomicU64::new(0);
        let begun = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while phase.load(Ordering::SeqCst) < u64::MAX {
                        let before = phase.load(Ordering::SeqCst);
                        let claim = claim(&routes).unwrap();
                        let after = phase.load(Ordering::SeqCst);
                        if before == after && before.is_multiple_of(2) {
                            assert_eq!(claim.node.name, names[(before / 2 % 2) as usize]);
                            claims.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
            for generation in 1..2000 {
                phase.store(2 * generation - 1, Ordering::SeqCst);
                put(generation);
                phase.store(2 * generation, Ordering::SeqCst);
                let old = names[((generation + 1) % 2) as usize];
                // On a busy machine too, there is one judged claim for each change.
                while routes.status()["hello/web"].contains_key(old) || claims.load(Ordering::SeqCst) < generation {
                    if begun.elapsed() > Duration::from_secs(60) {
                        phase.store(u64::MAX, Ordering::SeqCst);
                        panic!("the old node keeps its requests, or nobody claims");
                    }
                    std::thread::yield_now();
                }
            }
            phase.store(u64::MAX, Ordering::SeqCst);
        });
    }

    #[test]
    fn an_older_generation_is_refused_and_the_same_is_not() {
        let routes = Routes::new(Arc::new(Changes::new()));
        routes.apply(snapshot(5, &[])).unwrap();
        assert_eq!(routes.refuse_older(&snapshot(4, &[])).unwrap_err().generations["hello/web"], 5);
        assert!(routes.refuse_older(&snapshot(5, &[])).is_ok());
    }

    /// How many of `requests` claims each node gets. Each ends once so many others have begun, and those of the node `hung` never.
    fn split(snapshot: Snapshot, requests: u32, in_flight: usize, hung: &str) -> BTreeMap<String, u32> {
        let routes = Routes::new(Arc::new(Changes::new()));
        routes.apply(snapshot).unwrap();
        let mut dice = Dice::new(99);
        let mut counts = BTreeMap::new();
        let (mut held, mut kept) = (std::collections::VecDeque::new(), Vec::new());
        for _ in 0..requests {
            let Choice::Claimed(claim, _) = routes.claim("x", b"/", &[], Wish::default(), &mut dice) else { panic!("no node") };
            *counts.entry(claim.node.name.clone()).or_insert(0) += 1;
            if claim.node.name == hung {
                kept.push(claim)
            } else {
                held.push_back(claim)
            }
            if held.len() > in_flight {
                held.pop_front();
            }
        }
        counts
    }

    /// Within 5 standard deviations of the binomial distribution.
    #[track_caller]
    fn assert_share(count: u32, total: u32, share: f64) {
        let (count, total) = (f64::from(count), f64::from(total));
        let off = (count - total * share) / (total * share * (1.0 - share)).sqrt();
        assert!(off.abs() < 5.0, "{count} of {total} is {off} deviations off {share}");
    }

    #[test]
    fn traffic_follows_the_weights_however_busy_the_nodes_are() {
        let requests = 40_000;
        for (scale, in_flight) in [(1, 0), (1, 40), (21_845, 0), (21_845, 40)] {
            let counts = split(snapshot(1, &[("a", 1, 3 * scale), ("b", 2, scale), ("c", 3, 0)]), requests, in_flight, "");
            assert!(!counts.contains_key("c"));
            assert_share(counts["b"], requests, 0.25);
        }
        let counts = split(snapshot(1, &[("a", 1, u16::MAX), ("b", 2, 1)]), 1_000_000, 40, "");
        assert_share(counts["b"], 1_000_000, 1.0 / 65_536.0);
    }

    #[test]
    fn a_release_gets_its_weight_and_among_its_equal_nodes_the_less_busy_one_more() {
        let requests = 40_000;
        let mut snapshot = snapshot(1, &[("a", 1, 7), ("b", 2, 7), ("c", 3, 7), ("d", 4, 7)]);
        for node in ["c", "d"] {
            snapshot.services.get_mut("hello/web").unwrap().members.get_mut(node).unwrap().release = "web-r2".into();
        }
        let counts = split(snapshot, requests, 10, "c");
        assert_share(counts["a"] + counts["b"], requests, 0.5);
        assert_share(counts["a"], counts["a"] + counts["b"], 0.5);
        // The hung one is taken only where both draws fall on it, which is one time in four.
        assert!(counts["d"] > 2 * counts["c"], "{counts:?}");
    }

    #[test]
    fn the_cores_of_a_worker_draw_differently() {
        let draws = |seed: u64| {
            let mut dice = Dice::new(seed);
            (0..1000).map(|_| dice.below(2)).collect::<Vec<u64>>()
        };
        for (one, other) in [(0, 1), (4_000 << 16, 4_000 << 16 | 1), (4_000 << 16 | 2, 4_000 << 16 | 3)] {
            let same = draws(one).iter().zip(draws(other)).filter(|(one, other)| *one == other).count();
            assert_share(u32::try_from(same).unwrap(), 1000, 0.5);
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        assert_eq!(normal_host("WWW.Example.COM:8080"), "www.example.com");
        assert_eq!(normal_host("[::1]:80"), "[::1]");
        assert_eq!(normal_host("example.com."), "example.com");
    }

    use crate::health::Outcome;
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::identity::Identity;

const CLUSTER: ClusterId = [9; 16];

/// An origin that writes, and every section it ever published.
struct Writer {
    identity: Identity,
    tables: Tables,
    version: u64,
    now: Instant,
    history: Vec<Section>,
}

impl Writer {
    fn new(secret: u8) -> Self {
        let identity = Identity::from_secret(&[secret; 32]);
        let now = crate::gossip::testing::start();
        let mut writer = Self {
            identity,
            tables: Tables::new(NodeId([0; 16]), CLUSTER, None),
            version: 1 << 32,
            now,
            history: Vec::new(),
        };
        writer.publish(false);
        writer
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn own(&self) -> &Origin {
        self.tables.get(self.id()).expect("published")
    }

    fn set(&mut self, name: &str, body: Option<&[u8]>) {
        let before = self.own().complete();
        self.write(name, body);
        self.publish(false);
        self.history.push(self.own().section(before));
    }

    fn write(&mut self, name: &str, body: Option<&[u8]>) {
        self.version += 1;
        let record = Record::sign(&CLUSTER, &self.identity, &key(name), self.version, body.map(Box::from));
        let id = self.id();
        assert!(self.tables.put_own(self.now, id, &key(name), record), "no room");
    }

    fn publish(&mut self, left: bool) {
        self.version += 1;
        let mut head = head(&self.identity, self.version);
        head.left = left;
        let identity = &self.identity;
        self.tables.publish(head, |head| head.sign(&CLUSTER, identity));
    }
}

fn head(identity: &Identity, version: u64) -> Head {
    Head {
        public_key: identity.public_key(),
        name: "n".parse().expect("a name"),
        addr: ([192, 0, 2, 1], 7946).into(),
        data_port: 4789,
        version,
        start: [0; 8],
        returns: 0,
        count: 0,
        root: [0; 16],
        left: false,
        signature: [0; 64],
    }
}

fn key(name: &str) -> RecordKey {
    RecordKey::new(name.as_bytes()).expect("a key")
}

/// A table that only listens.
struct Reader {
    tables: Tables,
    counters: Counters,
    now: Instant,
}

impl Reader {
    fn new() -> Self {
        Self {
            tables: Tables::new(NodeId([0; 16]), CLUSTER, None),
            counters: Counters::default(),
            now: crate::gossip::testing::start(),
        }
    }

    fn merge(&mut self, section: &Section) -> Merged {
        self.tables.merge(self.now, section, Proof::Needed, &mut self.counters)
    }

    fn view(&self, id: NodeId) -> BTreeMap<RecordKey, Vec<u8>> {
        let origin = self.tables.get(id);
        origin
            .into_iter()
            .flat_map(Origin::records)
            .map(|(key, r)| (key.clone(), r.body().to_vec()))
            .collect()
    }
}

#[test]
fn change_is_proved_by_the_head_alone_when_nothing_was_missed() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.set("a", Some(b"1"));
    writer.set("b", Some(b"2"));
    assert_eq!(reader.merge(&writer.own().section(0)).missing, Missing::Nothing);
    assert_eq!(reader.counters.verifications, 1);
    writer.set("a", None);
    let merged = reader.merge(&writer.history[2]);
    assert_eq!(merged, Merged { advanced: true, changed: true, missing: Missing::Nothing, clash: false });
    assert_eq!(reader.counters.verifications, 2);
    assert_eq!(reader.view(writer.id()), BTreeMap::from([(key("b"), b"2".to_vec())]));
}

#[test]
fn change_after_a_missed_one_is_seen_at_once_and_the_gap_is_known() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.set("a", Some(b"1"));
    reader.merge(&writer.own().section(0));
    writer.set("b", Some(b"2"));
    writer.set("c", Some(b"3"));
    let merged = reader.merge(&writer.history[2]);
    assert_eq!((merged.changed, merged.missing), (true, Missing::Changes));
    assert!(reader.view(writer.id()).contains_key(&key("c")));
    let have = reader.tables.complete(writer.id());
    assert_eq!(reader.merge(&writer.own().section(have)).missing, Missing::Nothing);
    assert_eq!(reader.view(writer.id()).len(), 3);
}

#[test]
fn withdrawal_nobody_remembers_is_seen_by_its_absence() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.set("a", Some(b"1"));
    writer.set("b", Some(b"2"));
    reader.merge(&writer.own().section(0));
    writer.set("a", None);
    writer.tables.forget_withdrawals(writer.now + TOMBSTONE_LIFE);
    let have = reader.tables.complete(writer.id());
    assert_eq!(reader.merge(&writer.own().section(have)).missing, Missing::Everything);
    assert_eq!(reader.merge(&writer.own().section(0)).missing, Missing::Nothing);
    assert_eq!(reader.view(writer.id()).len(), 1);
    // The old record, relayed late, does not come back.
    assert!(!reader.merge(&writer.history[0]).changed);
    assert_eq!(reader.view(writer.id()).len(), 1);
}

#[test]
fn nothing_is_taken_that_its_owner_did_not_sign() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.set("a", Some(b"1"));
    let honest = writer.own().section(0);
    let mut other_head = honest.clone();
    other_head.head.version += 1;
    assert_eq!(reader.merge(&other_head), Merged::default());
    assert_eq!(reader.tables.len(), 0);

    let thief = Identity::from_secret(&[2; 32]);
    let mut foreign = honest.clone();
    foreign.records = vec![(
        key("a"),
        Record::sign(&CLUSTER, &thief, &key("a"), honest.head.version, Some(Box::from(&b"evil"[..]))),
    )];
    let merged = reader.merge(&foreign);
    assert_eq!((merged.changed, merged.missing), (false, Missing::Everything));
    assert_eq!(reader.counters.bad_signature, 2);
    assert!(reader.view(writer.id()).is_empty());

    let mut other_cluster = Tables::new(NodeId([0; 16]), [1; 16], None);
    assert_eq!(
        other_cluster.merge(reader.now, &honest, Proof::Needed, &mut reader.counters),
        Merged::default()
    );
    assert!(reader.merge(&honest).changed);
}

#[test]
fn record_above_its_head_is_not_taken() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.set("a", Some(b"1"));
    let mut section = writer.own().section(0);
    let eternal = Record::sign(&CLUSTER, &writer.identity, &key("z"), u64::MAX, Some(Box::from(&b"!"[..])));
    section.records.push((key("z"), eternal));
    section.extent = Extent::Part;
    reader.merge(&section);
    assert!(!reader.view(writer.id()).contains_key(&key("z")));
}

#[test]
fn highest_version_of_all_leaves_a_table_that_still_works() {
    let (writer, mut reader) = (Writer::new(1), Reader::new());
    let mut last = head(&writer.identity, u64::MAX);
    last.root = set_hash(std::iter::empty());
    last.sign(&CLUSTER, &writer.identity);
    let section = Section { head: last, extent: Extent::Full, records: Vec::new() };
    assert_eq!(reader.merge(&section).missing, Missing::Nothing);
    assert_eq!(reader.merge(&section), Merged::default());
    assert_eq!(reader.merge(&writer.own().section(0)), Merged::default());
}

#[test]
fn two_tables_under_one_version_are_counted_and_all_settle_on_the_same() {
    let (mut one, mut two) = (Writer::new(1), Writer::new(1));
    one.set("a", Some(b"one"));
    two.set("a", Some(b"two"));
    let (one, two) = (one.own().section(0), two.own().section(0));
    assert_eq!(one.head.version, two.head.version);
    let views: Vec<_> = [[&one, &two], [&two, &one]]
        .into_iter()
        .map(|order| {
            let mut reader = Reader::new();
            // Each table comes again, as comparison brings it.
            for section in order.into_iter().chain(order) {
                reader.merge(section);
            }
            assert!(reader.counters.equivocations > 0);
            assert!(reader.tables.get(one.head.origin()).is_some_and(Origin::is_complete));
            reader.view(one.head.origin())
        })
        .collect();
    assert_eq!(views[0], views[1]);
    assert_eq!(views[0].len(), 1);
}

#[test]
fn table_beyond_its_bounds_is_cut_and_counted() {
    let mut writer = Writer::new(1);
    let mut written = 0;
    loop {
        writer.version += 1;
        let name = key(&format!("{written}"));
        let record =
            Record::sign(&CLUSTER, &writer.identity, &name, writer.version, Some(Box::from(&[0; 4096][..])));
        let id = writer.id();
        if !writer.tables.put_own(writer.now, id, &name, record) {
            break;
        }
        written += 1;
    }
    assert!(written > 100 && written * 4096 <= MAX_TABLE);
    let small = Record::sign(&CLUSTER, &writer.identity, &key("0"), u64::MAX, Some(Box::from(&[0; 1][..])));
    assert!(
        writer.own().has_room(&key("0"), &small, MAX_TABLE),
        "a smaller record in the place of a larger one"
    );
}

#[test]
fn stranger_that_said_goodbye_is_not_remembered() {
    let (mut writer, mut reader) = (Writer::new(1), Reader::new());
    writer.publish(true);
    assert_eq!(reader.merge(&writer.own().section(0)), Merged::default());
    assert_eq!(reader.tables.len(), 0);
}

/// What a writer may do next.
#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Withdraw(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..6, any::<u8>()).prop_map(|(key, body)| Step::Set(key, body)),
        1 => (0u8..6).prop_map(Step::Withdraw),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sections in any order, repeated, with some lost: what is taken is always signed and newest, and one whole
    /// table at the end makes all equal.
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        steps in steps(),
        first in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        second in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut writer = Writer::new(1);
        for step in &steps {
            match step {
                Step::Set(name, body) => writer.set(&name.to_string(), Some(&[*body])),
                Step::Withdraw(name) => writer.set(&name.to_string(), None),
            }
        }
        let last = writer.own().section(0);
        let mut views = Vec::new();
        for order in [first, second] {
            let mut reader = Reader::new();
            for index in &order {
                reader.merge(index.get(&writer.history));
            }
            reader.merge(&last);
            prop_assert!(reader.tables.get(writer.id()).is_some_and(Origin::is_complete));
            prop_assert_eq!(reader.merge(&last), Merged::default());
            for index in &order {
                prop_assert!(!reader.merge(index.get(&writer.history)).changed);
            }
            prop_assert_eq!(reader.counters.bad_signature + reader.counters.equivocations, 0);
            views.push(reader.view(writer.id()));
        }
        let truth: BTreeMap<_, _> = writer.own().records().map(|(k, r)| (k.clone(), r.body().to_vec())).collect();
        prop_assert_eq!(&views[0], &truth);
        prop_assert_eq!(&views[1], &truth);
    }

    /// All sections, each once, in any order, need no whole table.
    #[test]
    fn every_change_in_any_order_makes_a_table_complete(steps in steps(), keys in prop::collection::vec(any::<u32>(), 12)) {
        let mut writer = Writer::new(1);
        for step in &steps {
            match step {
                Step::Set(name, body) => writer.set(&name.to_string(), Some(&[*body])),
                Step::Withdraw(name) => writer.set(&name.to_string(), None),
            }
        }
        let mut order: Vec<_> = writer.history.iter().zip(&keys).collect();
        order.sort_by_key(|(_, key)| **key);
        let mut reader = Reader::new();
        for (section, _) in order {
            reader.merge(section);
        }
        prop_assert!(reader.tables.get(writer.id()).is_some_and(Origin::is_complete));
    }
}

#[test]
fn all_tables_together_are_bounded_and_removal_makes_room() {
    let mut one = Writer::new(1);
    for n in 0..4 {
        one.set(&format!("{n}"), Some(&[7; 1000]));
    }
    let section = one.own().section(0);
    let mut reader = Reader::new();
    let other = NodeId([5; 16]);
    reader.tables.bytes = MAX_TABLES - 2200;
    reader.merge(&section);
    assert_eq!(reader.tables.get(one.id()).map(|origin| origin.records().count()), Some(2));
    assert!(reader.counters.over_limit > 0 && reader.tables.bytes <= MAX_TABLES);
    assert!(reader.tables.remove(one.id()) && !reader.tables.remove(other));
    assert_eq!(reader.tables.bytes, MAX_TABLES - 2200);
}

//! How one that lacks records gets in.

use dfs_protocol::FileId;
use dfs_protocol::datanode::AdminState;

use super::member::{Member, fence};
use super::*;
use crate::model::op::{CheckpointRecord, DatanodeRecord, Op};

/// What a link needs for each request: a try that takes as long as one question and one batch is over.
const SLOW: Duration = Duration::from_millis(1500);
/// Tries within which a test must come to its end.
const TRIES: usize = 20;

struct Bench {
    member: Member,
    catalog: Catalog,
    set: Arc<JournalSet>,
    /// What the catalog's tracker wrote, in order.
    ours: Vec<JournalRecord>,
    /// The set knows it for as long as this lives.
    source: Arc<dyn RosterSource>,
}

impl Bench {
    /// A catalog with at least `records` records of epoch 5, and a member without any.
    async fn new(records: u64) -> Self {
        let member = Member::default();
        let http = HttpClient::new(Arc::new(member.clone()));
        let source: Arc<dyn RosterSource> = Arc::new(NobodyYet);
        let clock = Arc::new(VirtualClock(Instant::now()));
        let set = set_over(http, clock, &source).await;
        let catalog = set.attached.get().unwrap().catalog.clone();
        let begin = Op::BeginEpoch { fence: fence(5, 1) };
        catalog.submit(begin).await.unwrap();
        for number in 0..records {
            catalog.submit(put_datanode(number)).await.unwrap();
        }
        let mut bench = Self {
            member,
            catalog,
            set,
            ours: Vec::new(),
            source,
        };
        bench.ours = bench.kept().await;
        bench
    }

    /// What a tracker that begins now has: nothing is remembered of the member.
    fn set(member: &Member, catalog: &Catalog, source: &Arc<dyn RosterSource>) -> Arc<JournalSet> {
        let clock = Arc::new(VirtualClock(Instant::now()));
        let set = new_set(HttpClient::new(Arc::new(member.clone())), clock);
        set.attach(catalog.clone(), Arc::downgrade(source));
        set
    }

    async fn kept(&self) -> Vec<JournalRecord> {
        let read = |snapshot: &crate::store::Snapshot<'_>| snapshot.journal_records(1, usize::MAX);
        self.catalog.read(read).await.unwrap()
    }

    fn last(&self) -> u64 {
        self.ours.last().unwrap().sequence
    }

    /// Tries until the member is in; how often.
    async fn tries_until_in(&self) -> usize {
        for tried in 1..=TRIES {
            self.set.try_again(&Member::at()).await;
            if self.set.members() == [Member::at().id] {
                return tried;
            }
        }
        panic!("it stays out: {:?}", self.member.journal().taken);
    }

    /// Whether what counts there is what is here, from one sequence on.
    fn is_whole_from(&self, from: u64) -> bool {
        let journal = self.member.journal();
        let mut wanted = self.ours.iter().filter(|one| one.sequence >= from);
        wanted.all(|one| {
            let theirs = journal.counts(one.sequence);
            theirs.is_some_and(|theirs| theirs.payload == one.payload)
        })
    }
}

fn put_datanode(number: u64) -> Op {
    Op::PutDatanode {
        id: DatanodeId::from_u128(u128::from(number) + 1),
        from: None,
        record: DatanodeRecord {
            admin: AdminState::InService,
            zone: None,
            host: None,
            address: format!("datanode-{number}:1"),
            registered: Timestamp::UNIX_EPOCH,
            claim: None,
        },
    }
}

/// The same place under an older tracker, with other bytes.
fn of_a_deposed_tracker(ours: &JournalRecord) -> JournalRecord {
    JournalRecord {
        fence: fence(4, 1),
        sequence: ours.sequence,
        payload: b"what nobody else confirmed".to_vec(),
    }
}

#[tokio::test(start_paused = true)]
async fn fault_21_a_member_gets_in_although_one_try_cannot_send_all_that_it_lacks() {
    let bench = Bench::new(1_000).await;
    bench.member.journal().delay = SLOW;
    let tried = bench.tries_until_in().await;
    assert!(tried > 2, "one try sent it all");
    assert_eq!(bench.set.paused.get(), tried as u64 - 1);
    assert!(bench.is_whole_from(1));
    let taken = bench.member.journal().taken.concat();
    let newest = bench.last();
    assert_eq!(taken, (1..=newest).chain([newest]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn fault_21_a_member_of_another_history_gets_in_although_one_try_cannot_send_all() {
    let bench = Bench::new(1_000).await;
    let theirs = bench.ours.iter().map(of_a_deposed_tracker).collect();
    bench.member.journal().records = theirs;
    bench.member.journal().delay = SLOW;
    let tried = bench.tries_until_in().await;
    assert!(tried > 2, "one try sent it all");
    assert!(bench.is_whole_from(1));
    let taken = bench.member.journal().taken.concat();
    let newest = bench.last();
    assert_eq!(taken, (1..=newest).chain([newest]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_datanode_of_before_backfills_gets_in_record_by_record_over_many_tries() {
    let bench = Bench::new(60).await;
    bench.member.journal().is_old = true;
    bench.member.journal().delay = Duration::from_millis(300);
    let tried = bench.tries_until_in().await;
    assert!(tried > 2, "one try sent it all");
    assert!(bench.is_whole_from(1));
    let newest = bench.last();
    let taken = bench.member.journal().taken.concat();
    assert_eq!(taken, (1..=newest).chain([newest]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_datanode_of_before_backfills_that_has_the_newest_record_is_not_sent_all_again() {
    let mut bench = Bench::new(60).await;
    bench.member.journal().is_old = true;
    bench.member.journal().records.clone_from(&bench.ours);
    assert_eq!(bench.tries_until_in().await, 1);
    assert_eq!(bench.member.journal().taken, [[bench.last()]]);
    // A damaged one is, although it cannot tell where its damage is.
    bench.set = Bench::set(&bench.member, &bench.catalog, &bench.source);
    bench.member.journal().damaged_from = Some(30);
    bench.member.journal().taken.clear();
    bench.tries_until_in().await;
    let taken = bench.member.journal().taken.concat();
    assert_eq!(taken.first(), Some(&1));
    assert_eq!(taken.last(), Some(&bench.last()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_rolled_back_to_before_backfills_and_forward_again_stays_one() {
    let bench = Bench::new(60).await;
    bench.tries_until_in().await;
    for is_old in [true, false] {
        bench.member.journal().is_old = is_old;
        for number in 0..3 {
            let more = put_datanode(1_000 + 10 * u64::from(is_old) + number);
            bench.catalog.submit(more).await.unwrap();
        }
        bench.member.journal().taken.clear();
        bench.set.try_again(&Member::at()).await;
        assert_eq!(bench.set.members(), [Member::at().id]);
        let newest = bench.kept().await.last().unwrap().sequence;
        let taken = bench.member.journal().taken.concat();
        assert_eq!(taken, [newest - 2, newest - 1, newest, newest]);
    }
}

#[tokio::test(start_paused = true)]
async fn i02_a_member_on_which_another_trackers_record_counts_is_sent_ours_again() {
    let mut bench = Bench::new(20).await;
    // This tracker's predecessor wrote ours there; then one that nobody else obeyed wrote its own.
    let mut theirs = bench.ours.clone();
    for record in &mut theirs {
        record.fence = fence(3, 1);
    }
    let overruled = bench.ours.iter().rev().take(2);
    theirs.extend(overruled.map(of_a_deposed_tracker));
    bench.member.journal().records = theirs;
    bench.tries_until_in().await;
    assert!(bench.is_whole_from(1));
    // Where ours counts although another's is beside it, nothing but the probe is sent again.
    bench.set = Bench::set(&bench.member, &bench.catalog, &bench.source);
    bench.member.journal().taken.clear();
    bench.tries_until_in().await;
    assert_eq!(bench.member.journal().taken, [[bench.last()]]);
}

#[tokio::test(start_paused = true)]
async fn what_a_member_lost_of_an_unfinished_backfill_is_sent_again() {
    let bench = Bench::new(1_000).await;
    bench.member.journal().delay = SLOW;
    bench.set.try_again(&Member::at()).await;
    assert!(bench.set.members().is_empty());
    bench.member.journal().records.truncate(100);
    bench.tries_until_in().await;
    assert!(bench.is_whole_from(1));
}

#[tokio::test(start_paused = true)]
async fn a_member_is_not_sent_what_every_checkpoint_covers_although_the_catalog_still_has_it() {
    let bench = Bench::new(600).await;
    let covered = 500;
    let checkpoint = CheckpointRecord {
        file: FileId::from_u128(1),
        sequence: covered,
        chunks: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
    };
    let checkpoints = vec![checkpoint];
    let set = bench
        .catalog
        .submit(Op::SetCheckpoints { checkpoints })
        .await;
    set.unwrap();
    let kept = bench.kept().await;
    assert!(kept[0].sequence < covered, "it keeps more than is needed");
    let newest = kept.last().unwrap();
    // Trimmed there up to the checkpoint, and all that came later: only the newest record is lacking.
    let theirs = bench.ours.iter().filter(|one| one.sequence > covered);
    bench.member.journal().records = theirs.cloned().collect();
    assert_eq!(bench.tries_until_in().await, 1);
    let taken = bench.member.journal().taken.concat();
    assert_eq!(taken, [newest.sequence; 2]);
}

#[test]
fn of_the_records_in_one_place_the_highest_epochs_counts_and_of_rivals_none() {
    let one = |epoch, incarnation, payload: &[u8]| JournalRecord {
        fence: fence(epoch, incarnation),
        sequence: 7,
        payload: payload.to_vec(),
    };
    let elsewhere = JournalRecord {
        sequence: 8,
        ..one(9, 9, b"theirs")
    };
    let ours = one(5, 1, b"ours");
    for (theirs, is_ours) in [
        (vec![], false),
        (vec![elsewhere.clone()], false),
        (vec![one(5, 1, b"ours"), elsewhere], true),
        (vec![one(3, 1, b"theirs"), one(4, 1, b"ours")], true),
        (vec![one(3, 1, b"ours"), one(4, 1, b"theirs")], false),
        (vec![one(4, 1, b"theirs"), one(3, 1, b"ours")], false),
        (vec![one(4, 1, b"ours"), one(4, 2, b"theirs")], false),
        (vec![one(4, 1, b"ours"), one(4, 2, b"ours")], true),
    ] {
        let counts = super::super::backfill::counts_as(&theirs, &ours);
        assert_eq!(counts, is_ours, "{theirs:?}");
    }
}

#[test]
fn a_backfill_begins_where_what_is_held_of_this_history_or_was_sent_of_it_ends() {
    for (oldest, held, is_ours, sent, first) in [
        (1, 0, false, None, 1),
        (1, 10, true, None, 11),
        (1, 10, false, None, 1),
        // An earlier try put ours beside the other history up to 6.
        (1, 10, false, Some(7), 7),
        // What was sent last is what is held.
        (1, 10, true, Some(11), 11),
        // It lost what was sent.
        (1, 5, false, Some(11), 1),
        (1, 5, true, Some(11), 6),
        (1, 0, false, Some(11), 1),
        // Checkpoints covered what was sent.
        (8, 10, false, Some(7), 8),
        (8, 7, false, Some(7), 8),
    ] {
        let begin = super::super::backfill::first_to_send(oldest, held, is_ours, sent);
        assert_eq!(begin, first, "{oldest} {held} {is_ours} {sent:?}");
    }
}

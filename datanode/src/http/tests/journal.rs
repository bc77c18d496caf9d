//! What the journal's routes refuse, and as what.

use dfs_protocol::Problem;
use dfs_protocol::backfill::{MAX_RECORDS, encode};
use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::JournalGap;

use super::*;
use crate::journal::format::MAX_PAYLOAD;

const REFUSED: &str = "dfs_datanode_journal_refused_total";

fn records(sequences: &[u64]) -> Vec<JournalRecord> {
    let record = |sequence: &u64| JournalRecord {
        fence: FENCE,
        sequence: *sequence,
        payload: format!("batch {sequence}").into_bytes(),
    };
    sequences.iter().map(record).collect()
}

/// What a body is answered with: nothing, when it is taken.
async fn post(node: &Node, path: &str, body: &[u8], crc: u32) -> Option<ErrorCode> {
    let (epoch, incarnation) = (FENCE.epoch, FENCE.incarnation);
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}epoch={epoch}&incarnation={incarnation}&crc32c={crc}");
    let answer = send(node, "POST", &path, &[], body).await;
    if answer.status == StatusCode::NO_CONTENT {
        return None;
    }
    let problem: Problem = serde_json::from_slice(&answer.body.unwrap()).unwrap();
    assert_eq!(problem.status, answer.status.as_u16());
    Some(problem.code().unwrap())
}

async fn backfill(node: &Node, body: &[u8]) -> Option<ErrorCode> {
    post(node, "/journal/backfill", body, crc32c(body)).await
}

async fn first_missing(node: &Node) -> u64 {
    let answer = send(node, "GET", "/journal/backfill?from=1", &[], b"").await;
    let gap: JournalGap = serde_json::from_slice(&answer.body.unwrap()).unwrap();
    gap.first_missing
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_27_records_that_do_not_match_their_checksum_are_a_bad_digest() {
    let (_tracker, node) = one().await;
    let body = encode(&records(&[1, 2]));
    let wrong = crc32c(&body) ^ 1;
    let refused = post(&node, "/journal/backfill", &body, wrong).await;
    assert_eq!(refused, Some(ErrorCode::BadDigest));
    let refused = post(&node, "/journal?sequence=1", b"batch 1", wrong).await;
    assert_eq!(refused, Some(ErrorCode::BadDigest));
    assert_eq!(first_missing(&node).await, 1);
    assert_eq!(backfill(&node, &body).await, None);
    assert_eq!(first_missing(&node).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn i32_a_backfill_that_is_no_sequence_of_records_is_a_bad_request_and_leaves_nothing() {
    let (_tracker, node) = one().await;
    let whole = encode(&records(&[1, 2]));
    for body in [
        b"".to_vec(),
        whole[..whole.len() - 1].to_vec(),
        whole[..5].to_vec(),
        encode(&records(&[2, 1])),
        encode(&records(&[1, 1])),
        encode(&records(&[1, 3])),
        encode(&records(&[0])),
        encode(&records(&[u64::MAX])),
        encode(&records(&[u64::MAX - 1, u64::MAX])),
    ] {
        let refused = backfill(&node, &body).await;
        assert_eq!(refused, Some(ErrorCode::BadRequest), "{body:?}");
    }
    for sequence in [0, u64::MAX] {
        let path = format!("/journal?sequence={sequence}");
        let refused = post(&node, &path, b"x", crc32c(b"x")).await;
        assert_eq!(refused, Some(ErrorCode::BadRequest), "{sequence}");
    }
    assert_eq!(first_missing(&node).await, 1);
    assert!(node.counted(REFUSED) < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn i32_a_backfill_over_the_limit_of_records_or_bytes_is_refused_and_counted() {
    let (_tracker, node) = one().await;
    let over: Vec<u64> = (1..=MAX_RECORDS as u64 + 1).collect();
    let refused = backfill(&node, &encode(&records(&over))).await;
    assert_eq!(refused, Some(ErrorCode::TooLarge));
    assert!((0.5..1.5).contains(&node.counted(REFUSED)));
    let mut long = records(&[1]);
    long[0].payload = vec![0; MAX_PAYLOAD + 1];
    let refused = backfill(&node, &encode(&long)).await;
    assert_eq!(refused, Some(ErrorCode::TooLarge));
    assert!((1.5..2.5).contains(&node.counted(REFUSED)));
    assert_eq!(first_missing(&node).await, 1);
    let most = &over[..MAX_RECORDS];
    assert_eq!(backfill(&node, &encode(&records(most))).await, None);
    assert_eq!(first_missing(&node).await, MAX_RECORDS as u64 + 1);
}

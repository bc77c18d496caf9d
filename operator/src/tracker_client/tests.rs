use dfs_protocol::{ErrorCode, Problem};

use super::*;

#[test]
fn the_first_line_of_a_token_file_is_the_token_and_it_is_never_printed() {
    let token = Token::first_of("\n  first \nsecond\n").unwrap();
    assert_eq!(token.expose(), "first");
    assert_eq!(format!("{token:?}"), "Token(..)");
    assert_eq!(Token::first_of(" \n\n"), None);
}

#[test]
fn a_failed_call_is_sorted_by_what_helps() {
    let problem = |kind: &str, status| {
        let mut problem = Problem::new(ErrorCode::Conflict, "d");
        problem.kind = format!("{PROBLEM_TYPE_PREFIX}{kind}");
        problem.status = status;
        TrackerError::from(ClientError::from(problem))
    };
    assert!(matches!(
        problem("catalog-lost", 503),
        TrackerError::NoCatalog(_)
    ));
    assert!(matches!(
        problem("unauthorized", 401),
        TrackerError::Unauthorized(_)
    ));
    assert!(matches!(problem("conflict", 409), TrackerError::Refused(_)));
    assert!(matches!(
        problem("unavailable", 503),
        TrackerError::Unreadable(_)
    ));
    assert!(matches!(
        problem("internal", 500),
        TrackerError::Unreadable(_)
    ));
}

#[test]
fn answers_of_an_older_and_of_a_newer_tracker_are_read() {
    let old = r#"{"id":"00000000000000000000000000000001","liveness":"live","admin":"pending"}"#;
    let entry: DatanodeEntry = serde_json::from_str(old).unwrap();
    assert_eq!((entry.volume, entry.refused), (None, None));
    let new = r#"{"state":"rebuilding","cluster":null,"detail":null,"progress":7}"#;
    let catalog: Catalog = serde_json::from_str(new).unwrap();
    assert_eq!(catalog.state, CatalogState::Rebuilding);
}

#[test]
fn what_the_tracker_says_of_the_spread_is_read() {
    let id = "00000000000000000000000000000001";
    let text = format!(
        r#"{{"cluster":"{id}","version":"1","spread":{{"possible":false,"sentence":"one host","wanted":3,"hosts":1,"zones":0,"badly_spread":0}}}}"#
    );
    let status: TrackerStatus = serde_json::from_str(&text).unwrap();
    let spread = status.spread.unwrap();
    assert_eq!((spread.possible, &spread.sentence[..]), (false, "one host"));
    let told = dfs_protocol::status::SpreadStatus::default();
    let same = serde_json::to_value(told).unwrap();
    assert!(serde_json::from_value::<Spread>(same).is_ok());
}

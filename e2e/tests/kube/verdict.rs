//! What a scenario says last. A failure's report is long and a log may be cut, from either side: so the message of
//! the panic stands at the end once more.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;
use std::time::Duration;

use crate::tools::indented;

thread_local! {
    /// The last panic of this thread: the one that unwinds it when something is dropped.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what panics say from now on, beside the hook that prints it.
pub(crate) fn keep_panics() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            print(panic);
            let said = panic.to_string();
            // Nothing to keep it in while the thread's own memory goes: it was printed.
            let _kept = MESSAGE.try_with(|message| message.replace(Some(said)));
        }));
    });
}

/// The last lines of a scenario. Called while it is unwound, or after it went well.
pub(crate) fn verdict(scenario: &str, took: Duration) -> String {
    if !std::thread::panicking() {
        return format!("== {scenario} passed after {took:.0?}");
    }
    let said = MESSAGE.with(|message| message.borrow().clone());
    let said = said.unwrap_or_else(|| "its panic was not kept".to_owned());
    let said = indented(&said);
    format!(
        "== {scenario} failed after {took:.0?}:\n{}",
        said.trim_end()
    )
}

#[test]
fn a_failed_scenario_tells_its_panic_at_its_end() {
    struct Scenario<'a>(&'a mut String);
    impl Drop for Scenario<'_> {
        fn drop(&mut self) {
            *self.0 = verdict("first", Duration::from_secs(67));
        }
    }
    keep_panics();
    let mut last = String::new();
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let _scenario = Scenario(&mut last);
        panic!("pods of the tracker: not within 5s:\nnone is ready");
    }));
    assert!(ended.is_err());
    let (head, said) = last.split_once('\n').unwrap();
    assert_eq!(head, "== first failed after 67s:");
    assert!(said.contains("panicked at"), "{said}");
    assert!(said.contains("verdict.rs"), "{said}");
    assert!(
        said.ends_with("    pods of the tracker: not within 5s:\n    none is ready"),
        "{said}"
    );

    drop(Scenario(&mut last));
    assert_eq!(last, "== first passed after 67s");
}

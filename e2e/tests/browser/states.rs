//! What a reader sees when something breaks, and when it is well again.

use dfs_cli::human;
use dfs_e2e::cluster::{Cluster, SOON};

use crate::door::{Door, store};
use crate::driver::Browser;

/// The state that the title carries.
fn state(word: &str) -> String {
    format!("document.title.startsWith({:?})", format!("{word} ·"))
}

async fn wait_state(browser: &Browser, word: &str) {
    browser
        .wait(&format!("the page says {word}"), &state(word))
        .await;
    assert!(browser.text("#word").await.contains(word));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_datanode_and_a_silent_tracker_are_seen_and_so_is_their_return() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut cluster = store().await;
    let door = Door::start(cluster.tracker.address).await;
    let bytes = cluster.bytes(300_000);
    cluster.store().put("kept", bytes).await;
    cluster.store().wait_healthy(SOON).await;
    browser.open(&door.page()).await;
    wait_state(&browser, "Fine").await;
    browser.shows("#use", "Writing: yes").await;
    browser
        .shows("#data", "Every chunk has all its replicas")
        .await;
    browser.shows("#room", " free of ").await;
    browser.shows("#datanodes", "3 of 3 datanodes live").await;

    words(&browser).await;
    partial(&browser).await;
    browser.audit_sees_faults().await;
    wait_state(&browser, "Fine").await;
    hidden(&browser, &cluster).await;

    cluster.kill_datanode(0).await;
    wait_state(&browser, "Degraded").await;
    // Said aloud once, with the tracker's own sentence.
    browser.shows("#said", "Degraded. ").await;
    browser.shows("#data", "too few replicas").await;
    browser.shows("#datanodes", "2 of 3 datanodes live").await;
    browser.shows("#repair", "to copy").await;
    browser.picture("degraded").await;
    browser.audit("degraded").await;
    browser.prefer("dark").await;
    browser.audit("degraded, dark").await;
    browser.picture("degraded-dark").await;
    browser.prefer("light").await;
    cluster.start_datanode(0).await;
    wait_state(&browser, "Fine").await;

    silence(&browser, &mut cluster).await;
}

/// Numbers read as the command line's.
async fn words(browser: &Browser) {
    let counts = [0, 1023, 1024, 1536, 1_048_524, 1_048_525, 5 << 30, 3 << 50];
    let times = [0, 59, 60, 185, 3600, 7800, 86_400, 273_600];
    let script = format!(
        "return import('/page/words.js').then((words) => [{counts:?}.map(words.bytes), \
         {times:?}.map(words.seconds), {counts:?}.map((count) => words.count(count, 'file'))])"
    );
    let wanted = [
        counts.map(human::bytes),
        times.map(human::seconds),
        counts.map(|count| human::count(count, "file")),
    ];
    assert_eq!(browser.run(&script).await, serde_json::json!(wanted));
}

/// Nobody looks: nothing is asked, and nothing waits to be. Somebody looks again: it is asked at once.
async fn hidden(browser: &Browser, cluster: &Cluster) {
    let watched = "window.pending = new Set(); \
        const [set, clear] = [setTimeout, clearTimeout]; \
        window.setTimeout = (run, after) => { \
            const id = set(() => { pending.delete(id); run(); }, after); \
            pending.add(id); return id; }; \
        window.clearTimeout = (id) => { pending.delete(id); clear(id); }; \
        Object.defineProperty(document, 'hidden', { get: () => window.away === true });";
    browser.run(watched).await;
    browser.click("#again").await;
    let waits = "document.querySelector('#word').textContent === 'Fine' && pending.size === 1";
    browser.wait("the next question waits", waits).await;
    let turn = |away: bool| {
        format!(
            "window.away = {away}; document.dispatchEvent(new Event('visibilitychange')); \
             return pending.size"
        )
    };
    browser.run(&turn(true)).await;
    browser.wait("nothing waits", "pending.size === 0").await;
    cluster.store().put("meanwhile", "x").await;
    assert_eq!(browser.run("return pending.size").await, 0);
    // The limit of the question that is asked at once.
    assert_eq!(browser.run(&turn(false)).await, 1);
    browser.shows("#listing", "meanwhile").await;
}

/// What an answer leaves out is said to be left out; the rest is shown.
async fn partial(browser: &Browser) {
    let script = "return import('/page/status.js').then(({ show }) => { \
                  show({ files: 3, datanodes: { live: 2 }, capacity: {}, chunks: { missing: 1 } }); \
                  return ['use', 'data', 'repair', 'room', 'datanodes'] \
                    .map((id) => document.getElementById(id).innerText); })";
    let shown = browser.run(script).await;
    let shown: Vec<String> = serde_json::from_value(shown).unwrap();
    let wanted = [
        "1 chunk cannot be read now",
        "1 chunk: no replica that can be read",
        "was not understood",
        "does not tell",
        "2 of not told",
    ];
    for (text, wanted) in shown.iter().zip(wanted) {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    browser.click("#again").await;
    let whole = "document.querySelector('#repair').innerText.includes('Nothing to repair')";
    browser.wait("the whole answer is shown", whole).await;
}

/// The tracker stands still, and then it is gone: neither leaves the last good state standing.
async fn silence(browser: &Browser, cluster: &mut Cluster) {
    cluster.pause_tracker().await;
    wait_state(browser, "No answer").await;
    let using = browser.text("#use").await;
    assert!(
        using.contains("unknown") && !using.contains("yes"),
        "{using}"
    );
    browser.shows("#freshness", "No answer since ").await;
    // What was known stays, and says from when it is.
    browser.shows("#data", "Every chunk").await;
    let marked = "document.querySelector('#data h2').dataset.old.startsWith('as of ')";
    browser.wait("old parts say so", marked).await;
    browser.picture("no-answer").await;
    browser.audit("no answer").await;
    cluster.resume_tracker();
    browser.click("#again").await;
    wait_state(browser, "Fine").await;
    browser
        .wait(
            "nothing is old",
            "!document.querySelector('#data').dataset.old",
        )
        .await;

    cluster.kill_tracker().await;
    browser.click("#again").await;
    let answered =
        "document.querySelector('#sentence').textContent.startsWith('This door answers: ')";
    browser.wait("the door says why", answered).await;
    wait_state(browser, "No answer").await;
    cluster.restart_tracker().await;
    browser.click("#again").await;
    wait_state(browser, "Fine").await;
    browser.shows("#use", "Reading: yes").await;

    let complaints = browser.complaints().await;
    // The browser notes each answer that is an error; nothing else may stand there.
    let others = complaints
        .iter()
        .filter(|line| !line.contains("Failed to load resource"));
    assert_eq!(others.count(), 0, "{complaints:#?}");
}

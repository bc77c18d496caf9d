//! The file list: from the first command to hostile names, and storing from the page itself.

use std::fmt::Write as _;

use dfs_e2e::http::Http;
use dfs_e2e::store::Store;
use serde_json::{Value, json};

use crate::door::{Door, store};
use crate::driver::Browser;

/// Names that would do something if they were taken for markup, for a script or for a path, and how
/// each is shown. In byte order.
fn hostile() -> Vec<(String, String)> {
    let plain = [
        " two  spaces ",
        "\"quotes\" & 'others' <b>bold",
        "#place?query=1&list",
        "%2e%2e",
        "'+(window.hurt=1)+'",
        "<img src=x onerror=window.hurt=1>",
        "<svg onload=window.hurt=1>",
        "back\\slash",
        "javascript:window.hurt=1",
    ];
    let mut names: Vec<(String, String)> = plain.map(|name| (name.into(), name.into())).into();
    names.push(("photo\u{202e}gpj.exe".into(), "photoU+202Egpj.exe".into()));
    names.push(("x".repeat(255), "x".repeat(255)));
    names.push(("\u{5d0}\u{5d1}.txt".into(), "\u{5d0}\u{5d1}.txt".into()));
    names.push(("\u{1f980}".into(), "\u{1f980}".into()));
    names
}

fn encode(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        write!(text, "%{byte:02X}").unwrap();
    }
    text
}

/// The first column of the list as it stands, once it has so many rows.
async fn listed(browser: &Browser, rows: usize) -> Vec<String> {
    const NAMES: &str = "[...document.querySelectorAll('#listing tbody th .name')]";
    let what = format!("the list has {rows} rows");
    browser
        .wait(&what, &format!("{NAMES}.length === {rows}"))
        .await;
    let names = browser
        .run(&format!(
            "return {NAMES}.map((element) => element.textContent)"
        ))
        .await;
    serde_json::from_value(names).unwrap()
}

/// Nothing that a name says has happened.
async fn unhurt(browser: &Browser) {
    let made = "return [window.hurt ?? null, document.querySelectorAll('img, svg, b, iframe, body script').length]";
    assert_eq!(browser.run(made).await, json!([null, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_text_whatever_they_say_from_the_empty_store_on() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let cluster = store().await;
    let door = Door::start(cluster.tracker.address).await;
    let store = cluster.store();
    browser.open(&door.page()).await;
    empty(&browser, &door).await;

    let names = hostile();
    for (name, _) in &names {
        store.put(&encode(name), name.clone()).await;
    }
    // In byte order, and without that anybody loads the page again.
    let shown: Vec<String> = names.iter().map(|(_, shown)| shown.clone()).collect();
    assert_eq!(listed(&browser, names.len()).await, shown);
    unhurt(&browser).await;
    downloads(&browser, &door, &names).await;
    browser.audit("in use").await;
    browser.picture("in-use").await;
    browser.prefer("dark").await;
    browser.audit("in use, dark").await;
    browser.prefer("light").await;
    browser.resize(360).await;
    browser.audit("on a phone").await;
    browser.picture("phone").await;
    browser.resize(1100).await;

    directories(&browser, &store).await;
    unhurt(&browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    uploads(&browser, &store).await;
}

/// An empty store says how to begin.
async fn empty(browser: &Browser, door: &Door) {
    browser
        .wait("it is empty", "document.querySelector('#empty')")
        .await;
    let title = "document.title.startsWith('Fine ·')";
    browser.wait("the store is asked", title).await;
    let first = format!("curl -F \"file=@example.txt\" {}upload", door.page());
    assert_eq!(browser.text("#listing pre").await, first);
    browser.shows("#data", "Nothing is stored yet").await;
    browser.audit("empty").await;
    browser.picture("empty").await;
    // By keyboard: the skip link leads to the files.
    browser.type_into("#skip", "\u{e007}").await;
    let at = browser.run("return document.activeElement.id").await;
    assert_eq!(at, "files-heading");
}

/// Each link fetches the file that its row names.
async fn downloads(browser: &Browser, door: &Door, names: &[(String, String)]) {
    let links = "return [...document.querySelectorAll('#listing a')].map((link) => link.href)";
    let links = browser.run(links).await;
    let links: Vec<String> = serde_json::from_value(links).unwrap();
    assert_eq!(links.len(), names.len());
    let http = Http::new(&door.address);
    for (link, (name, _)) in links.iter().zip(names) {
        let path = link.strip_prefix(door.page().as_str()).unwrap();
        let reply = http.get(&format!("/{path}")).await.unwrap().ok();
        assert_eq!(reply.text(), *name);
        assert!(
            reply
                .header("content-disposition")
                .starts_with("attachment")
        );
    }
}

/// Directories are walked by links, by going back and by address; long ones come in pages.
async fn directories(browser: &Browser, store: &Store) {
    store.put("albums/2024%20%3Cb%3E/photo.jpg", "photo").await;
    let top = hostile().len() + 1;
    listed(browser, top).await;
    browser.click("#listing a[href='#/albums/']").await;
    assert_eq!(listed(browser, 1).await, ["2024 <b>/"]);
    browser.click("#listing a").await;
    browser
        .wait(
            "the file is listed",
            "document.querySelector('#listing time')",
        )
        .await;
    assert_eq!(listed(browser, 1).await, ["photo.jpg"]);
    let way = browser.text("#place").await;
    let way: Vec<&str> = way.split_whitespace().collect();
    assert_eq!(way, ["all", "files", "albums", "2024", "<b>"]);
    browser.run("history.go(-2)").await;
    listed(browser, top).await;

    for number in 0..130 {
        let uri = format!("/files/many/{number:03}?copy-from=javascript%3Awindow.hurt%3D1");
        let copied = store.door.post_json(&uri, &Value::Null).await;
        assert!(copied.unwrap().status.is_success(), "{uri}");
    }
    browser.run("location.hash = '#/many'").await;
    assert_eq!(listed(browser, 100).await[99], "099");
    browser.shows("#listing-note", "more").await;
    browser.click("#next").await;
    assert_eq!(listed(browser, 30).await[0], "100");
    browser.click("#first").await;
    assert_eq!(listed(browser, 100).await[0], "000");
}

/// A chosen file is stored in the directory that is shown, and replaced only when the reader says so.
async fn uploads(browser: &Browser, store: &Store) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("from <i>a<_i> page.txt");
    std::fs::write(&file, "one").unwrap();
    browser.run("location.hash = '#/albums/'").await;
    listed(browser, 1).await;
    browser.type_into("#chosen", file.to_str().unwrap()).await;
    let last = "document.querySelector('#uploads li:last-child')?.textContent";
    browser
        .wait("it is stored", &format!("{last}?.includes(' stored ')"))
        .await;
    assert_eq!(listed(browser, 2).await[1], "from <i>a<_i> page.txt");
    let path = "albums/from%20%3Ci%3Ea%3C_i%3E%20page.txt";
    assert_eq!(store.get(path).await, "one");

    std::fs::write(&file, "two").unwrap();
    browser.type_into("#chosen", file.to_str().unwrap()).await;
    let refused = format!("{last}?.includes('is there already')");
    browser.wait("it is there already", &refused).await;
    assert_eq!(store.get(path).await, "one");
    browser.audit("an upload that asks").await;
    browser.click("#uploads li:last-child button").await;
    browser
        .wait("it is replaced", &format!("{last}?.includes(' stored ')"))
        .await;
    assert_eq!(store.get(path).await, "two");
}

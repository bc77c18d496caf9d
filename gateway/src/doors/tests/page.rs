//! The status page: who gets it, what guards it, and what it loads.

use super::*;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const LOADED: [&str; 7] = [
    "page.css",
    "page.js",
    "status.js",
    "files.js",
    "upload.js",
    "dom.js",
    "words.js",
];

async fn text(response: Response) -> String {
    String::from_utf8(bytes(response).await.to_vec()).unwrap()
}

#[tokio::test]
async fn browsers_get_the_page_and_everybody_else_the_commands() {
    let site = site().await;
    let page = site.call("GET", "/", &[("accept", BROWSER)]).await;
    assert_eq!(page.status(), 200);
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&page, "vary"), "accept");
    let page = text(page).await;
    assert!(page.contains("<html lang=\"en\">"));
    // Without a script it still says where the answers are.
    let without = page.split("<noscript>").nth(1).unwrap();
    assert!(without.contains("href=\"status\"") && without.contains("href=\"files?list"));
    for accept in ["*/*", "text/plain", "text/html;q=0, */*", ""] {
        let commands = site.call("GET", "/", &[("accept", accept)]).await;
        assert_eq!(
            header(&commands, "content-type"),
            "text/plain; charset=utf-8"
        );
        assert!(text(commands).await.contains("curl -F"), "{accept}");
    }
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_script_and_is_framed_by_nobody() {
    let site = site().await;
    let files = LOADED.iter().map(|name| format!("/page/{name}"));
    for uri in files.chain(["/".to_owned()]) {
        for method in ["GET", "HEAD"] {
            let answer = site.call(method, &uri, &[("accept", BROWSER)]).await;
            assert_eq!(answer.status(), 200, "{method} {uri}");
            let policy = header(&answer, "content-security-policy").to_owned();
            for rule in [
                "default-src 'none'",
                "script-src 'self'",
                "frame-ancestors 'none'",
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
            ] {
                assert!(
                    policy.split(';').any(|part| part.trim() == rule),
                    "{method} {uri}: {rule} is not in {policy:?}"
                );
            }
            assert!(!policy.contains("unsafe") && !policy.contains("http"));
            assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
            assert_eq!(header(&answer, "x-frame-options"), "DENY");
            assert_eq!(header(&answer, "referrer-policy"), "no-referrer");
            assert_eq!(text(answer).await.is_empty(), method == "HEAD");
        }
    }
}

#[tokio::test]
async fn the_page_asks_nobody_else_and_has_no_script_or_style_in_its_markup() {
    let site = site().await;
    let page = text(site.call("GET", "/", &[("accept", BROWSER)]).await).await;
    for part in page.split("<script").skip(1) {
        assert!(part.contains("></script>"), "a script within the page");
    }
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onload="));
    let mut whole = page.clone();
    for name in LOADED {
        let answer = site.call("GET", &format!("/page/{name}"), &[]).await;
        let is_script = std::path::Path::new(name).extension() == Some("js".as_ref());
        let media = if is_script { "javascript" } else { "css" };
        assert!(header(&answer, "content-type").contains(media), "{name}");
        whole += &text(answer).await;
    }
    // The icon within the page names its XML namespace; nothing else has an address of elsewhere.
    let whole = whole.replace("http://www.w3.org/2000/svg", "");
    for elsewhere in ["http:", "https:", "ws:", "//cdn"] {
        assert!(!whole.contains(elsewhere), "{elsewhere}");
    }
    for danger in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!whole.contains(danger), "{danger}");
    }
}

#[tokio::test]
async fn a_browser_that_has_the_page_gets_304_until_it_changes() {
    let site = site().await;
    for uri in ["/", "/page/page.js", "/page/page.css"] {
        let accept = ("accept", BROWSER);
        let first = site.call("GET", uri, &[accept]).await;
        let tag = header(&first, "etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "{uri}: {tag}");
        assert_eq!(header(&first, "cache-control"), "no-cache");
        let weak = format!("\"other\", W/{tag}");
        for known in [tag.as_str(), weak.as_str(), "*"] {
            for method in ["GET", "HEAD"] {
                let again = [accept, ("if-none-match", known)];
                let answer = site.call(method, uri, &again).await;
                assert_eq!(answer.status(), 304, "{method} {uri} {known}");
                assert_eq!(header(&answer, "etag"), tag);
                assert!(header(&answer, "content-security-policy").contains("'none'"));
                assert!(bytes(answer).await.is_empty());
            }
        }
        let other = [accept, ("if-none-match", "\"other\"")];
        assert_eq!(site.call("GET", uri, &other).await.status(), 200);
    }
    // What curl gets has another tag than what browsers get.
    let page = site.call("GET", "/", &[("accept", BROWSER)]).await;
    let commands = site.call("GET", "/", &[]).await;
    assert_ne!(header(&page, "etag"), header(&commands, "etag"));
}

#[tokio::test]
async fn bad_input_38_the_page_is_read_only_and_has_no_other_files() {
    let site = site().await;
    for uri in ["/", "/page/page.js"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let answer = site.call(method, uri, &[]).await;
            assert_eq!(answer.status(), 405, "{method} {uri}");
            assert_eq!(header(&answer, "allow"), "GET,HEAD");
        }
    }
    for name in [
        "index.html",
        "x",
        "mod.rs",
        "..%2Fmod.rs",
        "%FF",
        "page.js/",
    ] {
        let answer = site.call("GET", &format!("/page/{name}"), &[]).await;
        assert!(answer.status().is_client_error(), "{name}");
        assert_eq!(
            header(&answer, "content-type"),
            "application/problem+json",
            "{name}"
        );
    }
}

//! Which of our two media types a client would rather read.

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether `Accept` ranks plain text above JSON. Without the header, or with `*/*`, JSON wins.
pub(super) fn prefers_plain_text(headers: &HeaderMap) -> bool {
    let (mut plain, mut json) = (0.0_f32, 0.0_f32);
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let (media, quality) = media_range(range);
            match media.as_str() {
                "text/plain" | "text/*" => plain = plain.max(quality),
                "application/problem+json" | "application/json" | "application/*" | "*/*" => {
                    json = json.max(quality);
                }
                _ => {}
            }
        }
    }
    plain > json
}

fn media_range(range: &str) -> (String, f32) {
    let mut parts = range.split(';');
    let media = parts.next().unwrap_or("").trim().to_ascii_lowercase();
    let quality = parts
        .find_map(|part| part.trim().strip_prefix("q=")?.parse().ok())
        .unwrap_or(1.0);
    (media, quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        prefers_plain_text(&headers)
    }

    #[test]
    fn plain_text_is_for_clients_that_rank_it_above_json() {
        assert!(prefers("text/plain"));
        assert!(prefers("text/plain, */*;q=0.1"));
        assert!(!prefers("*/*"));
        assert!(!prefers("text/plain;q=0.5, application/json"));
        assert!(!prefers("text/html, application/xhtml+xml, */*;q=0.8"));
        assert!(!prefers(";;;q=x,,"));
        assert!(!prefers_plain_text(&HeaderMap::new()));
    }
}

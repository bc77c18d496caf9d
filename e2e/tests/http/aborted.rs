//! Row 22: uploads that end where a chunk does, or nearly.

use dfs_e2e::http::RawSocket;

use crate::site::{CHUNK, WITHIN, site};

#[tokio::test]
async fn bad_input_22_an_upload_aborted_around_any_chunk_boundary_leaves_nothing() {
    let site = site();
    for boundary in [0, CHUNK, 2 * CHUNK, 3 * CHUNK] {
        for sent in boundary.saturating_sub(1)..=boundary + 1 {
            for (head, tail) in [
                (format!("PUT /files/a22 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 3 * CHUNK + 2), ""),
                (
                    "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=X\r\n\
                     Transfer-Encoding: chunked\r\n\r\nfffffff\r\n--X\r\n\
                     Content-Disposition: form-data; name=\"file\"; filename=\"a22\"\r\n\r\n"
                        .to_owned(),
                    "\r\n--X",
                ),
            ] {
                let mut bytes = head.into_bytes();
                bytes.resize(bytes.len() + sent, b'x');
                bytes.extend_from_slice(tail.as_bytes());
                let mut socket = RawSocket::connect(&site.address).await.unwrap();
                socket.write(bytes).await.unwrap();
                if sent % 2 == 0 {
                    // Half closed: an answer may still come.
                    socket.finish().await.unwrap();
                    let reply = socket.read(WITHIN).await;
                    assert!(matches!(reply.status(), None | Some(400)), "{}", reply.text());
                }
            }
        }
    }
    assert!(site.names("a22").await.is_empty());
    // What was written of them is collected: fsck at the end of this binary's store says so.
    site.works().await;
    assert!(site.names("a22").await.is_empty());
    site.store.wait_fsck_clean(WITHIN).await;
}
